"""Image configurations, looked up by digest in OCI registries with the caller's own credentials."""
