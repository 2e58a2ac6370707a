"""How a pod may get its secrets."""
