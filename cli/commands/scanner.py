"""`morphisms scanner`: watches the cluster and tells what it sees where people look."""

from __future__ import annotations

import argparse
import os
import socket

from cli.support.listen_options import address
from cli.support.own_namespace import own_namespace
from server import service
from server.files import UnusableInputError
from webhook.cluster.replica import Replica

HELP = "watch the cluster, and tell on Services and workloads why their pods do not start"
EXAMPLE = "morphisms scanner --events --metrics-listen '[::]:9090'"
DESCRIPTION = """\
Watches pods, ReplicaSets and Events of all namespaces, and writes Events on the Knative Service, or else on the
Deployment or other owner:

  MorphismsDenied      the webhook or a guard refuses the workload's pods; the message is that of the denial
  MorphismsInitFailed  morphisms-init ended without secrets; the message has its reason and its correlation id

There is one Event for each object and code, counted up when it happens again. Of several replicas one writes, the
holder of the Lease morphisms-scanner. The scanner reads no Secret, and nothing calls it: it serves health and metrics
alone. Run it with manifests/components/scanner."""


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.description = DESCRIPTION
    parser.add_argument("--events", action="store_true", help="write Events; without it there is nothing to do")
    parser.add_argument(
        "--kubeconfig",
        metavar="FILE",
        default=os.environ.get("KUBECONFIG"),
        help="outside a cluster: how to reach one; default: KUBECONFIG, else the pod's service account",
    )
    parser.add_argument("--namespace", metavar="NAME", help="where the Lease is; default: where the pod runs")
    parser.add_argument(
        "--metrics-listen", type=address, metavar="HOST:PORT", help="serve health and metrics here, without TLS"
    )


def run(arguments: argparse.Namespace) -> int:
    """Watch until SIGTERM."""
    if not arguments.events:
        raise UnusableInputError("nothing to do: give --events")
    from server.kubernetes.connect import connect, unusable  # import aiohttp
    from webhook.scanner.application import ScannerSettings, make_application

    if problem := unusable(arguments.kubeconfig):
        raise UnusableInputError(problem)
    name = os.environ.get("POD_NAME") or f"{socket.gethostname()}-{os.getpid()}"
    settings = ScannerSettings(Replica(arguments.namespace or own_namespace(), name), arguments.metrics_listen)
    return service.run(lambda: make_application(settings, lambda: connect(arguments.kubeconfig)))
