"""Connections that another process has accepted: their handshakes, bounded in number and in time."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

from server.connections import Connections
from server.limits import Limits


class Adopting:
    """Makes the TLS handshakes. When there are as many as there may be connections, the oldest one makes room."""

    def __init__(self, connections: Connections, handler: Any, tls: Any, limits: Limits) -> None:
        self._connections = connections
        self._factory = connections.factory(handler)
        self._tls = tls
        self._limits = limits
        self._handshakes: dict[asyncio.Task[None], None] = {}  # the oldest first
        self.changed: Callable[[], None] = _ignore

    def __len__(self) -> int:
        return len(self._handshakes)

    def adopt(self, connection: socket.socket) -> None:
        """Shake hands on it, and serve it."""
        if len(self._handshakes) >= self._limits.connections:
            oldest = next(iter(self._handshakes))
            del self._handshakes[oldest]
            oldest.cancel()
            self.cut()
        task = asyncio.ensure_future(self._shake(connection))
        self._handshakes[task] = None
        task.add_done_callback(self._done)

    def cut(self) -> None:
        """Count a connection that got no handshake."""
        self._connections.cut.labels("too_many").inc()

    async def settled(self, seconds: float) -> None:
        """Wait until no handshake is under way, for so long at most."""
        if self._handshakes:
            await asyncio.wait(list(self._handshakes), timeout=seconds)

    def abort(self) -> None:
        """End what is under way."""
        for task in list(self._handshakes):
            task.cancel()

    async def _shake(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.connect_accepted_socket(
                self._factory, connection, ssl=self._tls, ssl_handshake_timeout=self._limits.header_seconds
            )
        except OSError:  # no handshake, or none in time
            connection.close()
        except asyncio.CancelledError:
            connection.close()

    def _done(self, task: asyncio.Task[None]) -> None:
        self._handshakes.pop(task, None)
        self.changed()


def _ignore() -> None:
    pass
