"""Events on Services and owners: why their pods were refused, or got no secrets."""
