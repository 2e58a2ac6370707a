"""Plaintext variables of a manifest, moved into Vault: what moves, into which secret, and where copies remain."""
