"""`morphisms webhook`: the admission server."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from cli.listening import add_listening_options, certificate_files
from server import service
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
    add_listening_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Serve until SIGTERM."""
    settings = Settings(
        listen=arguments.listen,
        certificate=certificate_files(arguments),
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
