from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest
import uvloop

from server.kubernetes.client import Client
from server.kubernetes.credentials import ServiceAccount
from server.kubernetes.reflector import ReflectorTiming
from tests.support.until import SECONDS
from tests.webhook.cluster.apiserver import NAMESPACES, ApiServer, hang, namespace
from webhook.cluster.live import LiveCluster
from webhook.configuration.model import Configuration
from webhook.configuration.sections import Reserved

CONFIGURATION = Configuration(reserved=Reserved(keys=("snp", "pool")))
"""Decisions under it look at these labels of nodes, and at the presets'."""


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop that production has."""
    return {"uvloop": uvloop.new_event_loop}


class Observed:
    """What the watches reported, to be waited for. Each wait ends within 60 s or fails."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self._changed = asyncio.Event()

    def __call__(self, resource: str, what: str) -> None:
        self.counts[resource, what] += 1
        self._changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def next(self, resource: str, what: str, times: int = 1) -> None:
        """Wait until it happened `times` more often than now."""
        goal = self.counts[resource, what] + times
        await self.until(lambda: self.counts[resource, what] >= goal)


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


HURRIED = ReflectorTiming(open=0.3, page=0.3, idle=SECONDS, watch=(600, 700), backoff=(0.01, 0.02))
"""For a server that hangs. A machine that stops for a moment makes an honest answer late too."""

PATIENT = replace(HURRIED, open=SECONDS, page=SECONDS)


class Live:
    """A running LiveCluster against `server`."""

    def __init__(self, server: ApiServer, timing: ReflectorTiming = PATIENT) -> None:
        self.server = server
        self.observed = Observed()
        self.clock = Clock()
        self.cluster = LiveCluster(
            CONFIGURATION,
            connect=self._connect,
            timing=timing,
            clock=self.clock,
            observe=self.observed,
        )
        self._task: asyncio.Task[None] | None = None

    async def _connect(self) -> Client:
        return Client(ServiceAccount(self.server.url))

    def start(self) -> None:
        self._task = asyncio.create_task(self.cluster.run())

    async def opened(self) -> None:
        """Start, and wait until all three watches are open."""
        self.start()
        wanted = [(resource, "opened") for resource in ("namespaces", "nodes", "runtimeclasses")]
        await self.observed.until(lambda: all(self.observed.counts[key] for key in wanted))

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            assert self._task.cancelled(), "the watches ended by themselves"


@pytest.fixture
async def server() -> AsyncIterator[ApiServer]:
    server = ApiServer()
    server.put(NAMESPACES, namespace("shop", "enforce"))
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def live(server: ApiServer, request: pytest.FixtureRequest) -> AsyncIterator[Live]:
    """With HURRIED times where the test's `fault` is that the server hangs."""
    fault = getattr(request.node, "callspec", None) and request.node.callspec.params.get("fault")
    live = Live(server, HURRIED if fault is hang else PATIENT)
    yield live
    await live.stop()
