"""Cold starts on a real node, measured: `make bench-node` writes docs/benchmarks.md and docs/benchmarks.svg.

`variants` are what is compared, `runner` starts them in turn, `moments` reads when each pod reached which moment,
`starts` keeps the results, `page` and `plot` show them. The node is that of tests/node: its evidence is simulated, and
every runtime handler is plain runc.
"""
