"""The secrets of the tests' workload, in OpenBao's KV version 2."""

from __future__ import annotations

from tests.sidecar.pod import HOME
from tests.support.openbao import OpenBao


def v2(path: str) -> str:
    """Where KV version 2 keeps the data of a path."""
    mount, _, rest = path.partition("/")
    return f"{mount}/data/{rest}"


def write_secret(server: OpenBao, name: str, data: object) -> None:
    """Write one of the workload's secrets."""
    server.done("POST", f"{v2(HOME)}/{name}", {"data": data})
