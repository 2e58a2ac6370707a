"""What an SEV-SNP report says, whether to believe it, and the verifier that turns belief into a Vault login."""
