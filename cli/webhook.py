"""`morphisms webhook`: the admission server."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from server import service
from server.service import Address
from server.tls import CertificateFiles
from server.yamlfile import ConfigurationError
from webhook.application import Settings, make_application
from webhook.configuration import Configuration
from webhook.fetch import Cluster, FileCluster

HELP = "serve admission over TLS"
EXAMPLE = "morphisms webhook --listen 127.0.0.1:8443 --tls-cert tls.crt --tls-key tls.key --snapshot cluster.yaml"


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="configuration; without it the documented defaults")
    parser.add_argument(
        "--snapshot",
        type=Path,
        metavar="FILE",
        help="a List of namespaces, nodes and RuntimeClasses in place of the cluster (for trying out)",
    )
    parser.add_argument("--listen", type=address, required=True, metavar="HOST:PORT", help="where to serve (TLS 1.3)")
    parser.add_argument("--tls-cert", type=Path, required=True, metavar="FILE", help="serving certificate, reloaded")
    parser.add_argument("--tls-key", type=Path, required=True, metavar="FILE", help="its key")
    parser.add_argument(
        "--metrics-listen", type=address, metavar="HOST:PORT", help="health and metrics once more, without TLS"
    )


def run(arguments: argparse.Namespace) -> int:
    """Serve until SIGTERM."""
    settings = Settings(
        listen=arguments.listen,
        certificate=CertificateFiles(arguments.tls_cert, arguments.tls_key),
        metrics_listen=arguments.metrics_listen,
        configuration=arguments.config,
    )
    if arguments.snapshot is not None:
        return service.run(lambda: make_application(settings, lambda _: FileCluster.read(arguments.snapshot)))
    return service.run(lambda: make_application(settings, _live))


def _live(configuration: Configuration) -> Cluster:
    from webhook.watch import LiveCluster  # imports a whole Kubernetes client

    if not (os.environ.get("KUBECONFIG") or os.environ.get("KUBERNETES_SERVICE_HOST")):
        raise ConfigurationError(["not inside a cluster: set KUBECONFIG, or give --snapshot FILE for trying out"])
    return LiveCluster(configuration)


def address(text: str) -> Address:
    """HOST:PORT; an IPv6 host in brackets."""
    host, separator, port = text.rpartition(":")
    if not separator or not host or not port.isdigit() or int(port) > 65535:
        raise argparse.ArgumentTypeError("expected HOST:PORT, such as 127.0.0.1:8443")
    return host.removeprefix("[").removesuffix("]"), int(port)
