"""What a pod may share with its host and with users."""
