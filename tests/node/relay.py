"""Loopback ports of this machine that lead to the same port of loopback in another network namespace, or from there.

`python -m tests.node.relay HOLDER` listens on a free port of loopback, prints it, and connects in the namespace of
process HOLDER. So one kubeconfig is right on both sides.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
from collections.abc import Callable

from tests.node.sandbox import connect

_CHUNK = 65536


def serve(listener: socket.socket, connected: Callable[[], socket.socket]) -> None:
    """Hand on each connection, until the process ends."""
    while True:
        accepted, _ = listener.accept()
        threading.Thread(target=_hand_on, args=(accepted, connected), daemon=True).start()


def _hand_on(accepted: socket.socket, connected: Callable[[], socket.socket]) -> None:
    with accepted, contextlib.suppress(OSError), connected() as other:
        other.settimeout(None)
        back = threading.Thread(target=_copy, args=(other, accepted), daemon=True)
        back.start()
        _copy(accepted, other)
        back.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while chunk := source.recv(_CHUNK):
            target.sendall(chunk)
    for end, way in ((target, socket.SHUT_WR), (source, socket.SHUT_RD)):
        with contextlib.suppress(OSError):
            end.shutdown(way)


def _main() -> None:
    """HOLDER: into its namespace, at the port that is printed. FROM-HOST FROM-PORT PORT: between two addresses here."""
    listener = socket.socket()
    if len(sys.argv) == 2:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        holder = int(sys.argv[1])

        def connected() -> socket.socket:
            return connect(holder, "127.0.0.1", port)

    else:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((sys.argv[1], int(sys.argv[2])))
        target = int(sys.argv[3])

        def connected() -> socket.socket:
            return socket.create_connection(("127.0.0.1", target), 30)

    listener.listen(128)
    print(listener.getsockname()[1], flush=True)
    serve(listener, connected)


if __name__ == "__main__":
    _main()
