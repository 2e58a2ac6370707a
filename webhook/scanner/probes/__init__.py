"""What only the cluster reaches, tried out by the scanner and published: the verifier, Vault, names and token keys."""
