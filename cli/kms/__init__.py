"""What `morphisms kms` is made of: connections that are attested before anything secret is sent, keys, and reports."""
