"""A Service's part for replicas on loopback: it spreads new connections over the replicas that are ready.

`python -m tests.support.balancer PORT FILE` listens on loopback. FILE has one line `PORT HEALTH-PORT` per replica. Four
times a second the balancer reads FILE and probes the replicas, so an endpoint takes up to `UPDATE_SECONDS` to be
withdrawn. The last ready one is withdrawn after three failed probes, as the kubelet does with all: a busy machine fails
one probe of a replica that serves. Open connections stay where they are.

FILE.endpoints says how often the balancer has looked, and which ports are endpoints. One that is withdrawn stays there
until each connection that was given to it has been accepted, which its first bytes show.
"""

from __future__ import annotations

import asyncio
import functools
import random
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import uvloop

_LOOK_SECONDS = 0.25
_PROBE_SECONDS = 1.0
_FAILURES = 3
UPDATE_SECONDS = _LOOK_SECONDS + _PROBE_SECONDS
"""How long it may take until no new connection goes to a replica that is not ready any more."""


class _Side(asyncio.Protocol):
    """One end of a relayed connection."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.other: _Side | None = None
        self._early: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self.other is None:
            self._early.append(data)
        elif self.other.transport is not None:
            self.other.transport.write(data)

    def connection_lost(self, _error: Exception | None) -> None:
        self.transport = None
        if self.other is not None and self.other.transport is not None:
            self.other.transport.close()

    def join(self, other: _Side) -> None:
        """Relay from now on, and first the bytes that have arrived already."""
        self.other, other.other = other, self
        for data in self._early:
            self.data_received(data)
        if self.transport is None and other.transport is not None:
            other.transport.close()


class _Replica(_Side):
    """The replica's end. `accepted` is called once: when the replica has sent something, or there is no connection."""

    def __init__(self, accepted: Callable[[], None]) -> None:
        super().__init__()
        self._accepted: Callable[[], None] | None = accepted

    def data_received(self, data: bytes) -> None:
        self._note()
        super().data_received(data)

    def connection_lost(self, error: Exception | None) -> None:
        self._note()
        super().connection_lost(error)

    def _note(self) -> None:
        if self._accepted is not None:
            self._accepted()
            self._accepted = None


class _Accepted(_Side):
    def __init__(self, balancer: Balancer) -> None:
        super().__init__()
        self._balancer = balancer
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._task = asyncio.get_running_loop().create_task(self._connect())

    async def _connect(self) -> None:
        port = self._balancer.choose()
        try:
            if port is None:
                raise ConnectionRefusedError
            other = await self._balancer.connect(port)
        except OSError:
            if self.transport is not None:
                self.transport.abort()  # as a Service without endpoints does, which gives no answer
            return
        self.join(other)


class Balancer:
    """Knows which replicas are ready."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._ready: list[int] = []
        self._failures = Counter[int]()
        self._unaccepted = Counter[int]()
        self._looks = 0

    async def connect(self, port: int) -> _Side:
        """A new connection to a replica."""
        self._unaccepted[port] += 1

        def accepted() -> None:
            self._unaccepted[port] -= 1

        try:
            make = functools.partial(_Replica, accepted)
            _, side = await asyncio.get_running_loop().create_connection(make, "127.0.0.1", port)
        except OSError:
            accepted()
            raise
        return side

    def choose(self) -> int | None:
        """A ready replica's port."""
        return random.choice(self._ready) if self._ready else None

    async def look(self) -> None:
        """Probe all replicas, until cancelled."""
        while True:
            lines = self._file.read_text().splitlines()
            replicas = [(int(port), int(health)) for port, _, health in (line.partition(" ") for line in lines)]
            answers = await asyncio.gather(*(_is_ready(health) for _, health in replicas))
            ready = [port for (port, _), is_ready in zip(replicas, answers, strict=True) if is_ready]
            for port, _ in replicas:
                self._failures[port] = 0 if port in ready else self._failures[port] + 1
            kept = [port for port, _ in replicas if port in self._ready and self._failures[port] < _FAILURES]
            self._ready = ready or kept
            self._publish()
            await asyncio.sleep(_LOOK_SECONDS)

    def _publish(self) -> None:
        self._looks += 1
        ports = {*self._ready, *(port for port, count in self._unaccepted.items() if count)}
        unfinished = self._file.with_name(f"{self._file.name}.endpoints.new")
        unfinished.write_text(" ".join(map(str, (self._looks, *sorted(ports)))))
        unfinished.replace(_endpoints_file(self._file))


@dataclass(frozen=True)
class Endpoints:
    """Where connections may come to, by the `looks`-th look of a balancer."""

    looks: int
    ports: frozenset[int]


def endpoints(file: Path) -> Endpoints:
    """What the balancer of this FILE said last."""
    try:
        looks, *ports = map(int, _endpoints_file(file).read_text().split())
    except FileNotFoundError:
        return Endpoints(0, frozenset())
    return Endpoints(looks, frozenset(ports))


def _endpoints_file(file: Path) -> Path:
    return file.with_name(f"{file.name}.endpoints")


async def _is_ready(port: int) -> bool:
    try:
        async with asyncio.timeout(_PROBE_SECONDS):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                return b" 200 " in await reader.readline()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False


async def _main(port: int, file: Path) -> None:
    balancer = Balancer(file)
    loop = asyncio.get_running_loop()
    await loop.create_server(lambda: _Accepted(balancer), "127.0.0.1", port)
    await balancer.look()


if __name__ == "__main__":
    uvloop.run(_main(int(sys.argv[1]), Path(sys.argv[2])))
