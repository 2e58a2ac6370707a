"""The scanner: judges the workloads of a live cluster by the rules of admission."""
