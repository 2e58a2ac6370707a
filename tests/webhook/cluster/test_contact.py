"""A replica that gets no answer from the API server makes room for others; one that is refused stays, as all are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from server.kubernetes.client import Client
from server.kubernetes.contact import Contact
from server.kubernetes.credentials import ServiceAccount
from tests.cluster.link import Link
from tests.support.until import until_async
from tests.webhook.cluster.apiserver import CLASSES, NAMESPACES, NODES, ApiServer, namespace, status
from tests.webhook.cluster.conftest import Clock, Observed
from webhook.cluster.live import LiveCluster
from webhook.configuration.model import Configuration

_SILENCE = 10.0
_LESS = 4.0
_RESOURCES = ("namespaces", "nodes", "runtimeclasses")


@dataclass
class Replica:
    """A view of a cluster behind a wire that can be cut. Its seconds of silence pass when the test says so."""

    cluster: LiveCluster
    contact: Contact
    server: ApiServer
    wire: Link
    clock: Clock

    async def gets_an_answer(self) -> None:
        """Let some time pass, less than makes a silence, and wait for the answer that ends it."""
        self.clock.now += _LESS
        await until_async(lambda: self.contact.silent_seconds == 0)


@pytest.fixture
async def replica() -> AsyncIterator[Replica]:
    """Its three watches are open, so that no answer is on its way any more."""
    clock, observed = Clock(), Observed()

    class TimedClient(Client):
        @property
        def answered_at(self) -> float:
            return self._answered_at

        @answered_at.setter
        def answered_at(self, _now: float) -> None:
            self._answered_at = clock()

    server = ApiServer()
    server.put(NAMESPACES, namespace("shop", "enforce"))
    await server.start()
    with Link(int(server.url.rpartition(":")[2])) as wire:

        async def connect() -> Client:
            return TimedClient(ServiceAccount(f"http://127.0.0.1:{wire.port}"))

        contact = Contact(silence_seconds=_SILENCE, probe_seconds=0.3, clock=clock)
        cluster = LiveCluster(Configuration(), connect=connect, clock=clock, observe=observed, contact=contact)
        task = asyncio.create_task(cluster.run())
        await observed.until(lambda: all(observed.counts[each, "opened"] for each in _RESOURCES))
        yield Replica(cluster, contact, server, wire, clock)
        task.cancel()
        await asyncio.wait([task])
    await server.stop()


async def test_a_replica_that_gets_no_answer_is_not_ready_until_it_gets_one(replica: Replica) -> None:
    cluster = replica.cluster
    await asyncio.to_thread(replica.wire.cut)
    replica.clock.now += _LESS
    assert cluster.problem() is None, "a moment without an answer is no reason"

    replica.clock.now += _SILENCE - _LESS
    assert cluster.problem() == "no answer from the API server for 10 s"
    await asyncio.to_thread(replica.wire.mend)
    await until_async(lambda: cluster.problem() is None)


@pytest.mark.parametrize("code", [401, 403, 500, 503])
async def test_a_replica_that_every_request_is_refused_stays_ready(replica: Replica, code: int) -> None:
    """A bad sync of RBAC, or an API server in distress, meets all replicas: unready ones would stop everything."""
    for path in (NAMESPACES, NODES, CLASSES, "/version"):
        replica.server.faults[path].extend(status(code) for _ in range(1000))
    # The watches that are open have to end, or they would go on.
    await asyncio.to_thread(replica.wire.cut)
    await asyncio.to_thread(replica.wire.mend)
    while replica.cluster.age_seconds <= 2 * _SILENCE:
        await replica.gets_an_answer()
        assert replica.cluster.problem() is None


async def test_a_quiet_cluster_is_no_silent_one(replica: Replica) -> None:
    """Between two bookmarks a watch sends nothing for a minute; the replica asks for an answer meanwhile."""
    before = replica.clock.now
    while replica.clock.now <= before + 2 * _SILENCE:
        asked = len(replica.server.asked("/version", watch=False))
        await replica.gets_an_answer()
        assert len(replica.server.asked("/version", watch=False)) > asked
        assert replica.cluster.problem() is None
