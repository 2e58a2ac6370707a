"""Whether a namespace can be switched to another mode: what would break, line by line."""
