"""A command as a pod runs it: with a service account, whose folder lies elsewhere than the kubelet's.

`python -m tests.support.in_cluster FOLDER webhook …`; FOLDER holds `token` and `ca.crt`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from server.kubernetes import credentials
from tests.support.paths import ROOT


def command(folder: Path, *arguments: object) -> list[str]:
    """The command line of such a process."""
    return [sys.executable, "-m", "tests.support.in_cluster", str(folder), *map(str, arguments)]


def environment(url: str) -> Mapping[str, str]:
    """The variables that the kubelet sets, for the API server at `url`; no kubeconfig."""
    host, _, port = url.removeprefix("https://").rpartition(":")
    inherited = {name: value for name, value in os.environ.items() if name != "KUBECONFIG"}
    variables = {credentials.HOST_VARIABLE: host, credentials.PORT_VARIABLE: port}
    return {**inherited, **variables, "PYTHONPATH": str(ROOT)}


if __name__ == "__main__":
    credentials.SERVICE_ACCOUNT = Path(sys.argv.pop(1))  # type: ignore[misc]
    from cli.main import main

    sys.exit(main())
