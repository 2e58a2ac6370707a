"""`morphisms simulated-hardware`: an SNP machine without the machine, for trying things out and for tests.

`hierarchy` keeps the root and keys, `device` makes reports, `server` hands them out. Everything carries the product
line `Simulated`: whoever is to believe it has to be given its root by name, and every verdict then says `simulated`.
"""
