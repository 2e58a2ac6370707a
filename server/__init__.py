"""The base of both HTTPS servers: TLS with hot reload, limits, drain, health, metrics, JSON logs, typed YAML.

It knows nothing of admission or attestation. Names are imported from their modules, so that a command which only
reads a YAML file does not load an HTTP server:

- `server.service`: `Application`, `Service`, `run`; the parts of a server, and its life
- `server.messages`: `RequestInfo`, `Response`, `Refusal`, `Handler`; the arguments and results of handlers
- `server.limits`: `Limits`; every bound with its default
- `server.tls`: `CertificateFiles`, `HeldCertificate`, `ServingCertificateError`; the serving pair
- `server.health`: `Gate`, `Check`; readiness by name and reason
- `server.metrics`: `new_registry`; process metrics without the global registry
- `server.logs`: `configure`, `info`, `warning`, `error`, `set_correlation_id`; one JSON event per line
- `server.files`: `read_bounded`, `UnusableInputError`; a file of at most so many bytes
- `server.text`: `printable`, `did_you_mean`; others' words in messages
- `server.yaml.kubernetes`: `read_documents`, `write_documents`; Kubernetes objects, read as Kubernetes reads them
- `server.yaml.strict`: `load`, `Loaded`, `ConfigurationError`, `schema`; typed YAML
- `server.watched`: `Watched`, `watch_yaml`, `FileMetrics`; hot reload that keeps the last valid value
"""
