"""What a pod may run."""
