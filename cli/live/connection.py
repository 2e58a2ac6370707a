"""The options that say which cluster a command reads, and one line where it cannot be read."""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, TypeVar

from cli.support.terminal import say
from server.files import UnusableInputError
from server.kubernetes.client import Client
from server.kubernetes.errors import CredentialsError, KubernetesError, StatusError
from server.kubernetes.kubeconfig import Kubeconfig

UNREACHABLE: Final = 3
Result = TypeVar("Result")


def add_cluster(parser: argparse.ArgumentParser) -> None:
    """Declare which cluster is read, and by which configuration it is judged."""
    parser.add_argument("--kubeconfig", metavar="FILE", help="without it: KUBECONFIG, else ~/.kube/config")
    parser.add_argument("--context", metavar="NAME", help="of the kubeconfig; without it the current one")
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="the webhook's configuration; without it the cluster's ConfigMap morphisms-system/morphisms-webhook",
    )


def with_cluster(
    arguments: argparse.Namespace, command: str, read: Callable[[Client], Awaitable[Result]]
) -> Result | None:
    """What `read` returns; None, and a message, where the cluster does not answer. Raises UnusableInputError."""
    path = arguments.kubeconfig or os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")

    async def run() -> Result:
        async with Client(Kubeconfig(path, context=arguments.context), proxies=True) as client:
            return await read(client)

    try:
        return asyncio.run(run())
    except (CredentialsError, StatusError) as error:
        raise UnusableInputError(str(error)) from None
    except KubernetesError as error:
        say(f"morphisms {command}: {error}")
        return None
