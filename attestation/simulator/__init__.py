"""`morphisms simulated-hardware`: an SNP machine without the machine, for trying things out and for tests.

`hierarchy` keeps the root and keys, `device` makes reports, `server` hands them out. Everything carries the product
line `Simulated`: a verifier accepts it only with its root configured by name, and every result then says `simulated`.
"""
