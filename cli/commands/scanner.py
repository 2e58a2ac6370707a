"""`morphisms scanner`: watches the cluster and tells what it sees where people look."""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import socket
import sys
from pathlib import Path
from typing import Final

from cli.support.listen_options import address
from cli.support.own_namespace import own_namespace
from server import service
from server.files import UnusableInputError
from webhook.cluster.replica import Replica

HELP = "watch the cluster, and tell on Services and workloads why their pods do not start"
EXAMPLE = "morphisms scanner --events --metrics-listen '[::]:9090'"
DESCRIPTION = """\
Watches a cluster, and tells what it sees where people look. Of several replicas one writes, the holder of the Lease
morphisms-scanner. The scanner reads no Secret, and nothing calls it: it serves health and metrics alone. Run it with
manifests/components/scanner, and for reports scanner-reports too.

--events writes Events on the Knative Service, or else on the Deployment or other owner:

  MorphismsDenied      the webhook or a guard refuses the workload's pods; the message is that of the denial
  MorphismsInitFailed  morphisms-init ended without secrets; the message has its reason and its correlation id

There is one Event for each object and code, counted up when it happens again.

--reports evaluates every workload of the namespaces with a mode, as in mode enforce, and writes a report for each and
one of the cluster, in the kinds of openreports.io or wgpolicyk8s.io, whichever the cluster has. docs/operations.md says
what the results mean.

--probes tries whether the verifier and Vault are reached and trusted as the configuration says, and whether the
verifier knows this cluster and its token keys. It publishes the results in the ConfigMap morphisms-probes, where
`morphisms preflight` reads them.

--probe-once watches nothing: it probes what the variable MORPHISMS_PROBE names, prints the results as one line,
and ends. It needs no API server. `morphisms preflight --probe` has it run in a Job."""

_LONGEST_SCAN_SECONDS: Final = 86_400.0
# preflight counts no results older than 15 minutes.
_LONGEST_PROBE_SECONDS: Final = 600.0


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.description = DESCRIPTION
    parser.add_argument("--events", action="store_true", help="write Events")
    parser.add_argument("--reports", action="store_true", help="write reports")
    parser.add_argument(
        "--config-maps",
        action="store_true",
        help="with --reports: look for secrets in ConfigMaps that workloads take variables from",
    )
    parser.add_argument("--probes", action="store_true", help="probe the verifier and Vault, and publish the results")
    parser.add_argument(
        "--probe-seconds",
        type=probe_seconds,
        default=300.0,
        metavar="SECONDS",
        help="with --probes: between two rounds, from 10 to 600; default %(default)g",
    )
    parser.add_argument(
        "--probe-once", action="store_true", help="probe what MORPHISMS_PROBE names, print one line, and end"
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="configuration; without it the documented defaults")
    parser.add_argument(
        "--scan-seconds",
        type=scan_seconds,
        default=300.0,
        metavar="SECONDS",
        help="with --reports: from the end of one pass over the cluster to the next; default %(default)g",
    )
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
    """Watch until SIGTERM, or probe once."""
    if arguments.probe_once:
        return _probe_once()
    if not (arguments.events or arguments.reports or arguments.probes):
        raise UnusableInputError("nothing to do: give --events, --reports or --probes")
    from server.kubernetes.connect import connect, unusable  # import aiohttp
    from webhook.scanner.application import ScannerSettings, make_application

    if problem := unusable(arguments.kubeconfig):
        raise UnusableInputError(problem)
    name = os.environ.get("POD_NAME") or f"{socket.gethostname()}-{os.getpid()}"
    settings = ScannerSettings(
        Replica(arguments.namespace or own_namespace(), name),
        arguments.metrics_listen,
        events=arguments.events,
        reports=arguments.reports,
        configuration=arguments.config,
        scan_seconds=arguments.scan_seconds,
        config_maps=arguments.config_maps,
        probes=arguments.probes,
        probe_seconds=arguments.probe_seconds,
    )
    return service.run(lambda: make_application(settings, lambda: connect(arguments.kubeconfig)))


def _probe_once() -> int:
    from webhook.scanner.probes.once import VARIABLE, probe_once  # imports aiohttp

    try:
        asyncio.run(probe_once(os.environ.get(VARIABLE, ""), sys.stdout.write))
    except ValueError as error:
        raise UnusableInputError(str(error)) from None
    return 0


def scan_seconds(text: str) -> float:
    """Seconds, from 1 to a day."""
    return _seconds(text, 1, _LONGEST_SCAN_SECONDS)


def probe_seconds(text: str) -> float:
    """Seconds, from 10 to ten minutes."""
    return _seconds(text, 10, _LONGEST_PROBE_SECONDS)


def _seconds(text: str, least: float, longest: float) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not least <= seconds <= longest:
        raise argparse.ArgumentTypeError(f"expected seconds from {least:g} to {longest:g}, such as 300")
    return seconds
