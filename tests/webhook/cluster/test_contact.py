"""A replica that gets no answer from the API server makes room for others; one that is refused stays, as all are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from server.kubernetes.client import Client
from server.kubernetes.contact import Contact
from server.kubernetes.credentials import ServiceAccount
from tests.cluster.link import Link
from tests.support.until import until_async
from tests.webhook.cluster.apiserver import CLASSES, NAMESPACES, NODES, ApiServer, namespace, status
from webhook.cluster.live import LiveCluster
from webhook.configuration.model import Configuration

_SILENCE = 1.0


@pytest.fixture
async def replica() -> AsyncIterator[tuple[LiveCluster, ApiServer, Link]]:
    """A view of a cluster behind a wire that can be cut, listed once."""
    server = ApiServer()
    server.put(NAMESPACES, namespace("shop", "enforce"))
    await server.start()
    with Link(int(server.url.rpartition(":")[2])) as wire:

        async def connect() -> Client:
            return Client(ServiceAccount(f"http://127.0.0.1:{wire.port}"))

        contact = Contact(silence_seconds=_SILENCE, probe_seconds=0.1)
        cluster = LiveCluster(Configuration(), connect=connect, contact=contact)
        task = asyncio.create_task(cluster.run())
        await until_async(lambda: cluster.problem() is None)
        yield cluster, server, wire
        task.cancel()
        await asyncio.wait([task])
    await server.stop()


async def test_a_replica_that_gets_no_answer_is_not_ready_until_it_gets_one(
    replica: tuple[LiveCluster, ApiServer, Link],
) -> None:
    cluster, _, wire = replica
    await asyncio.to_thread(wire.cut)
    assert cluster.problem() is None, "a moment without an answer is no reason"
    await until_async(lambda: cluster.problem() is not None)
    problem = cluster.problem()
    assert problem is not None
    assert problem.startswith("no answer from the API server for ")
    await asyncio.to_thread(wire.mend)
    await until_async(lambda: cluster.problem() is None)


@pytest.mark.parametrize("code", [401, 403, 500, 503])
async def test_a_replica_that_every_request_is_refused_stays_ready(
    replica: tuple[LiveCluster, ApiServer, Link], code: int
) -> None:
    """A bad sync of RBAC, or an API server in distress, meets all replicas: unready ones would stop everything."""
    cluster, server, wire = replica
    for path in (NAMESPACES, NODES, CLASSES, "/version"):
        server.faults[path].extend(status(code) for _ in range(1000))
    # The watches that are open have to end, or they would go on.
    await asyncio.to_thread(wire.cut)
    await asyncio.to_thread(wire.mend)
    before = len(server.requests)
    await until_async(lambda: len(server.requests) > before + 2 * int(_SILENCE / 0.1))
    assert cluster.problem() is None
    await until_async(lambda: cluster.current().age_seconds is not None and cluster.age_seconds > 2 * _SILENCE)
    assert cluster.problem() is None


async def test_a_quiet_cluster_is_no_silent_one(replica: tuple[LiveCluster, ApiServer, Link]) -> None:
    """Between two bookmarks a watch sends nothing for a minute; the replica asks for an answer meanwhile."""
    cluster, server, _ = replica
    before = len(server.requests)
    await until_async(lambda: [path for path, *_ in server.requests[before:]].count("/version") > 2 * _SILENCE / 0.1)
    assert cluster.problem() is None
