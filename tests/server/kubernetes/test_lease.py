"""Leader election: one holder at a time, by our clock and never by the one in the Lease."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import web

from server.kubernetes.client import Client
from server.kubernetes.credentials import ServiceAccount
from server.kubernetes.lease import LeaderElection, LeaseTiming, lease_ref
from tests.support.until import SECONDS

REF = lease_ref("system", "one")
TIMING = LeaseTiming(duration=1, lead=0.6, retry=0.05)


class LeaseServer:
    """One Lease with a resourceVersion, whose writes are guarded as an API server guards them."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.is_down = False
        self.writes = 0
        self.conflicts = 0
        self.first_reads = asyncio.Barrier(1)
        self.url = ""
        self.changed = asyncio.Event()

    async def answer(self, request: web.Request) -> web.Response:
        assert request.path == "/apis/coordination.k8s.io/v1/namespaces/system/leases/one"
        if self.is_down:
            return web.Response(status=503)
        if request.method == "GET":
            if self.writes == 0:
                await self.first_reads.wait()
            return web.json_response(self.lease) if self.lease else web.Response(status=404)
        sent = json.loads(await request.read())
        stored = None if self.lease is None else self.lease["metadata"]["resourceVersion"]
        if sent["metadata"].get("resourceVersion") != stored:
            self.conflicts += 1
            self.changed.set()
            return web.Response(status=409)
        self.writes += 1
        self.lease = {**sent, "metadata": {**sent["metadata"], "resourceVersion": str(self.writes)}}
        return web.json_response(self.lease)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for what this server and the candidates report."""
        async with asyncio.timeout(SECONDS):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    @property
    def spec(self) -> dict[str, Any]:
        assert self.lease is not None
        spec: dict[str, Any] = self.lease["spec"]
        return spec


@pytest.fixture
async def server() -> AsyncIterator[LeaseServer]:
    server = LeaseServer()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", server.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield server
    await runner.cleanup()


class Candidate:
    """A process that takes part."""

    def __init__(self, server: LeaseServer, identity: str, timing: LeaseTiming = TIMING) -> None:
        self._server = server
        self.election = LeaderElection(REF, identity, server.changed.set, timing)
        self._client = Client(ServiceAccount(server.url))
        self._task = asyncio.create_task(self.election.run(self._client))

    async def until(self, *, leads: bool) -> None:
        await self._server.until(lambda: self.election.is_leader is leads)

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])
        await self._client.close()


async def test_one_leads_and_its_successor_need_not_wait_when_it_stops(server: LeaseServer) -> None:
    first = Candidate(server, "first")
    await first.until(leads=True)
    second = Candidate(server, "second")
    try:
        assert server.spec["holderIdentity"] == "first"
        assert server.spec["leaseTransitions"] == 1
        assert not second.election.is_leader
        await first.stop()
        await second.until(leads=True)
        assert server.spec["holderIdentity"] == "second"
        assert server.spec["leaseTransitions"] == 2
    finally:
        await first.stop()
        await second.stop()


async def test_a_holder_that_cannot_renew_stops_leading(server: LeaseServer) -> None:
    only = Candidate(server, "only")
    try:
        await only.until(leads=True)
        server.is_down = True
        await only.until(leads=False)
        server.is_down = False
        await only.until(leads=True)
        assert server.spec["leaseTransitions"] == 1  # it was its holder all the time
    finally:
        await only.stop()


async def test_a_lease_expires_by_the_time_that_passes_here(server: LeaseServer) -> None:
    """Its `renewTime` lies in the future, and its duration is negative: another clock, and a wrong number."""
    server.writes = 1
    server.lease = {
        "metadata": {"name": "one", "resourceVersion": "1"},
        "spec": {"holderIdentity": "gone", "renewTime": "2999-01-01T00:00:00.000000Z", "leaseDurationSeconds": -5},
    }
    other = Candidate(server, "other")
    try:
        await other.until(leads=True)
        assert server.spec["holderIdentity"] == "other"
    finally:
        await other.stop()


async def test_of_three_that_read_the_same_lease_one_leads(server: LeaseServer) -> None:
    server.first_reads = asyncio.Barrier(3)
    # No lease expires meanwhile: another try would be one more conflict.
    timing = LeaseTiming(duration=60, lead=40, retry=0.05)
    candidates = [Candidate(server, name, timing) for name in ("a", "b", "c")]
    try:
        await server.until(lambda: server.conflicts == 2 and any(each.election.is_leader for each in candidates))
        assert [each.election.is_leader for each in candidates].count(True) == 1
    finally:
        for each in candidates:
            await each.stop()
