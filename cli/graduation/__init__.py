"""Takes a namespace to a stricter mode step by step, each only when nothing would break."""
