"""`morphisms verifier`: the server that appraises guests and logs accepted ones in to Vault."""

from __future__ import annotations

import argparse
import resource
import sys
from pathlib import Path

from attestation.verifier.assembly import Settings, make_application
from attestation.verifier.configuration import load_configuration
from cli.support.listen_options import add_listening_options, certificate_files
from server import service
from server.service import Application

HELP = "appraise guests' evidence over TLS, and log accepted guests in to Vault"
EXAMPLE = "morphisms verifier --config verifier.yaml --listen '[::]:8443' --tls-cert tls.crt --tls-key tls.key"


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="see docs/verifier.schema.json")
    add_listening_options(parser, own_ca=True)


def run(arguments: argparse.Namespace) -> int:
    """Serve until SIGTERM; 2 when the configuration, a policy or a key cannot be used."""
    has_files = arguments.tls_cert is not None or arguments.tls_key is not None
    if has_files and None in (arguments.tls_cert, arguments.tls_key):
        print("morphisms verifier: --tls-cert and --tls-key go together", file=sys.stderr)
        return 2
    settings = Settings(
        listen=arguments.listen,
        certificate=certificate_files(arguments) if has_files else None,
        metrics_listen=arguments.metrics_listen,
        lame_duck_seconds=arguments.lame_duck_seconds,
    )

    # Keys and secrets are in this memory alone; a core dump would put them on a disk.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    def make() -> Application:
        return make_application(settings, load_configuration(arguments.config))

    return service.run(make)
