"""`morphisms verifier`: judges guests beside Vault, and logs believed ones in."""

from __future__ import annotations

import argparse
from pathlib import Path

from attestation.verifier.application import Settings, make_application
from attestation.verifier.configuration import load_configuration
from cli.webhook import address
from server import service
from server.service import Application
from server.tls import CertificateFiles

HELP = "judge guests' evidence over TLS, and log believed ones in to Vault"
EXAMPLE = "morphisms verifier --config verifier.yaml --listen 0.0.0.0:8443 --tls-cert tls.crt --tls-key tls.key"


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="see docs/verifier.schema.json")
    parser.add_argument("--listen", type=address, required=True, metavar="HOST:PORT", help="where to serve (TLS 1.3)")
    parser.add_argument("--tls-cert", type=Path, required=True, metavar="FILE", help="serving certificate, reloaded")
    parser.add_argument("--tls-key", type=Path, required=True, metavar="FILE", help="its key")
    parser.add_argument(
        "--metrics-listen", type=address, metavar="HOST:PORT", help="health and metrics once more, without TLS"
    )


def run(arguments: argparse.Namespace) -> int:
    """Serve until SIGTERM; 2 when the configuration, a policy or a key cannot be used."""
    settings = Settings(
        listen=arguments.listen,
        certificate=CertificateFiles(arguments.tls_cert, arguments.tls_key),
        metrics_listen=arguments.metrics_listen,
    )

    def make() -> Application:
        return make_application(settings, load_configuration(arguments.config))

    return service.run(make)
