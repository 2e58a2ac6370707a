"""What both servers stand on: TLS with hot reload, limits, drain, health, metrics, JSON logs, typed YAML."""
