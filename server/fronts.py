"""What stands between a server and its clients where several processes share one port (`server.workers`)."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from typing import Protocol

from prometheus_client import CollectorRegistry

from server.messages import Handler, RequestInfo, Response


class Workers(Protocol):
    """The processes that answer in place of this one, their parent (`server.workers.pool`)."""

    cannot_start: bool
    """Whether the server has to end, with the exit code of one that cannot start."""

    def problem(self) -> str | None:
        """Why none of them can serve; None while one can. A gate of readiness."""

    def start(self, listen: tuple[str, int], own: Mapping[str, Handler], stop: Callable[[], None]) -> tuple[str, int]:
        """Bind the port and start them. Raises OSError."""

    async def run(self) -> None:
        """Look after them until cancelled."""

    def drain(self) -> None:
        """Let them close each connection after its next answer."""

    async def finished(self, seconds: float) -> bool:
        """Accept nothing more, and wait for their end. Returns whether every request was answered."""

    async def expose(self, body: bytes, info: RequestInfo) -> Response:
        """The metrics of all processes together."""


class Parent(Protocol):
    """The process that accepts this one's connections (`server.workers.link`)."""

    @property
    def own(self) -> Mapping[str, Handler]:
        """Handlers of what the replica answers as a whole."""

    def start(self, adopt: Callable[[socket.socket], None], open_: Callable[[], int], cut: Callable[[], None]) -> None:
        """Take connections from now on."""

    def counted(self) -> None:
        """Note that the number of open connections has changed."""

    async def run(
        self, registry: CollectorRegistry, failing: Callable[[], dict[str, str]], stop: Callable[[], None]
    ) -> None:
        """Follow the parent until cancelled."""

    def report(self, registry: CollectorRegistry) -> None:
        """Send the last counts."""
