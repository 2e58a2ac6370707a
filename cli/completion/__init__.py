"""Completion of words in a shell: the candidates, of the parser itself, and the scripts that ask for them."""
