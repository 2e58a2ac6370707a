"""`morphisms webhook`: the admission server."""

from __future__ import annotations

import argparse
import os
import socket
from pathlib import Path

from certs.identity import Identity
from cli.support.listen_options import add_listening_options, certificate_files
from cli.support.own_namespace import own_namespace
from server import service
from server.files import UnusableInputError
from server.tls import CertificateFiles
from server.workers.link import ParentLink
from server.yaml.strict import ConfigurationError
from webhook.cluster.file import FileCluster
from webhook.cluster.protocol import Cluster
from webhook.cluster.replica import Replica
from webhook.configuration.model import Configuration
from webhook.server import WebhookSettings, make_application

_MOST_WORKERS = 64

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
    parser.add_argument(
        "--kubeconfig",
        metavar="FILE",
        default=os.environ.get("KUBECONFIG"),
        help="outside a cluster: how to reach one; default: KUBECONFIG, else the pod's service account",
    )
    add_listening_options(parser, own_ca=True)
    parser.add_argument(
        "--workers",
        type=workers,
        default=1,
        metavar="N",
        help="processes that answer, one per core to use; default %(default)s, the server itself",
    )
    parser.add_argument(
        "--own-ca",
        action="store_true",
        help="keep a CA of our own in Secrets, and the webhook configurations' caBundle, in place of --tls-cert",
    )
    parser.add_argument(
        "--namespace", metavar="NAME", help="where the webhook's own objects are; default: where the pod runs"
    )
    parser.add_argument(
        "--service", metavar="NAME", default="morphisms-webhook", help="with --own-ca: the Service; default %(default)s"
    )


def run(arguments: argparse.Namespace) -> int:
    """Serve until SIGTERM."""
    settings = WebhookSettings(
        listen=arguments.listen,
        certificate=_certificate(arguments),
        metrics_listen=arguments.metrics_listen,
        configuration=arguments.config,
        lame_duck_seconds=arguments.lame_duck_seconds,
        kubeconfig=arguments.kubeconfig,
        replica=_replica(arguments),
        workers=arguments.workers,
    )
    parent = ParentLink.inherited()
    if settings.workers > 1 and parent is None:
        from webhook.parent import make_parent

        return service.run(lambda: make_parent(settings))
    if arguments.snapshot is not None:
        return service.run(lambda: make_application(settings, lambda _: FileCluster.read(arguments.snapshot), parent))
    return service.run(
        lambda: make_application(settings, lambda configuration: _live(configuration, settings.kubeconfig), parent)
    )


def workers(text: str) -> int:
    """A number of worker processes."""
    if not text.isdecimal() or not 1 <= int(text) <= _MOST_WORKERS:
        raise argparse.ArgumentTypeError(f"expected a number from 1 to {_MOST_WORKERS}, such as 2")
    return int(text)


def _replica(arguments: argparse.Namespace) -> Replica | None:
    """Which replica this is; None for a process that is no pod of a Deployment."""
    name = os.environ.get("POD_NAME")
    if arguments.snapshot is not None or not name:
        return None
    return Replica(arguments.namespace or own_namespace(), name)


def _certificate(arguments: argparse.Namespace) -> CertificateFiles | Identity:
    files = (arguments.tls_cert, arguments.tls_key)
    if not arguments.own_ca:
        if None in files:
            raise UnusableInputError("the server needs a certificate: give --own-ca, or --tls-cert and --tls-key")
        return certificate_files(arguments)
    if files != (None, None) or arguments.snapshot is not None:
        raise UnusableInputError("--own-ca lives in a cluster: it goes without --tls-cert, --tls-key and --snapshot")
    replica = os.environ.get("POD_NAME") or socket.gethostname()
    return Identity(arguments.namespace or own_namespace(), arguments.service, replica)


def _live(configuration: Configuration, kubeconfig: str | None) -> Cluster:
    from server.kubernetes.connect import connect, unusable  # import aiohttp
    from webhook.cluster.live import LiveCluster

    if problem := unusable(kubeconfig):
        raise ConfigurationError([problem])
    return LiveCluster(configuration, connect=lambda: connect(kubeconfig))
