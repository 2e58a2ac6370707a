"""The options that say which cluster a command reads, and one line where it cannot be read."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import threading
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
    """What `read` returns; None, and a message, where the cluster does not answer. Raises UnusableInputError.

    SIGTERM and SIGINT cancel `read`, which then removes what it made: SystemExit with 143 or 130.
    """
    path = arguments.kubeconfig or os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")

    async def run() -> Result:
        if threading.current_thread() is threading.main_thread():
            _cancel_once(signal.SIGTERM)
        async with Client(Kubeconfig(path, context=arguments.context), proxies=True) as client:
            return await read(client)

    try:
        return asyncio.run(run())
    except asyncio.CancelledError:
        raise SystemExit(128 + signal.SIGTERM) from None
    except KeyboardInterrupt:
        raise SystemExit(128 + signal.SIGINT) from None
    except (CredentialsError, StatusError) as error:
        raise UnusableInputError(str(error)) from None
    except KubernetesError as error:
        say(f"morphisms {command}: {error}")
        return None


def _cancel_once(number: signal.Signals) -> None:
    """Cancel this task at the first such signal. A second one must not interrupt the tidying up."""
    task = asyncio.current_task()
    waiting = [task] if task is not None else []

    def cancel() -> None:
        if waiting:
            waiting.pop().cancel()

    asyncio.get_running_loop().add_signal_handler(number, cancel)
