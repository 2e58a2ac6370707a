"""Free ports of loopback."""

from __future__ import annotations

import os
import random
import re
import socket
from typing import Final

# Below those that the kernel gives to outgoing connections, so that one stays free while its server restarts.
_FIRST, _LAST = 12_000, 32_000
_MOST_WORKERS: Final = 16
_given: set[int] = set()


def free_port() -> int:
    """A port on which nothing listens now, and which no test of this run was given.

    The workers of a run share no port: one would take what another has found free and not bound yet.
    """
    while True:
        port = random.choice(_own_ports())
        if port in _given:
            continue
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            _given.add(port)
            return port


def _own_ports() -> range:
    """Each sixteenth, by the number of the worker of xdist; the last are for a process that is not one."""
    worker = re.fullmatch(r"gw(\d+)", os.environ.get("PYTEST_XDIST_WORKER", ""))
    number = int(worker[1]) % (_MOST_WORKERS - 1) if worker else _MOST_WORKERS - 1
    return range(_FIRST + number, _LAST, _MOST_WORKERS)


def has_ipv6() -> bool:
    """Whether this machine has an IPv6 loopback address."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True
