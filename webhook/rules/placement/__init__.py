"""Where a pod may run."""
