"""The `morphisms` command, also installed as `kubectl-morphisms`: one module a subcommand."""
