"""`morphisms capture`: what a cluster says about the pods that it will make, for `morphisms render`."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import yaml

from cli.rendering.capture import capture, explain
from cli.support.terminal import say
from server.files import UnusableInputError
from server.kubernetes.client import Client
from server.kubernetes.errors import CredentialsError, KubernetesError, StatusError
from server.kubernetes.kubeconfig import Kubeconfig

HELP = "write cluster.yaml: Knative's version and settings, the container template in force, service accounts"
EXAMPLE = "morphisms capture --context prod > cluster.yaml"

_UNREACHABLE = 3


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.description = (
        "Prints what morphisms render needs to know of a cluster, as YAML. It only reads, and no Secret.\n"
        "Exit codes: 0 printed, 2 the cluster or an option cannot be used, 3 no answer."
    )
    parser.add_argument("--kubeconfig", metavar="FILE", help="without it: KUBECONFIG, else ~/.kube/config")
    parser.add_argument("--context", metavar="NAME", help="of the kubeconfig; without it the current one")
    parser.add_argument(
        "--knative-namespace", default="knative-serving", metavar="NAME", help="of Knative's controllers"
    )
    parser.add_argument("--knative-version", metavar="V", help="where no label says it, such as v1.23.0")


def run(arguments: argparse.Namespace) -> int:
    """Read the cluster and print."""
    path = arguments.kubeconfig or os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")
    try:
        document = asyncio.run(_capture(path, arguments))
    except StatusError as error:
        raise UnusableInputError(explain(error)) from None
    except CredentialsError as error:
        raise UnusableInputError(str(error)) from None
    except KubernetesError as error:
        say(f"morphisms capture: {error}")
        return _UNREACHABLE
    sys.stdout.write(yaml.safe_dump(document, sort_keys=False, width=2**30, allow_unicode=True))
    return 0


async def _capture(path: str, arguments: argparse.Namespace) -> dict[str, Any]:
    async with Client(Kubeconfig(path, context=arguments.context), proxies=True) as client:
        return await capture(client, arguments.knative_namespace, arguments.knative_version)
