"""How a pod may come by its secrets."""
