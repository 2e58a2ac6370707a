"""Which images a pod may run."""
