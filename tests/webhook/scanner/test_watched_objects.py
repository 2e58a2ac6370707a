"""A watch over all namespaces keeps what is wanted of it, and tells objects of one name in two namespaces apart."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from server.kubernetes.client import Client
from server.kubernetes.credentials import ServiceAccount
from server.kubernetes.reflector import Collection, Reflector, ReflectorTiming, key_of_namespaced
from tests.support.until import SECONDS, until_async
from tests.webhook.cluster.apiserver import NODES, ApiServer, node


@pytest.fixture
async def server() -> AsyncIterator[ApiServer]:
    server = ApiServer()
    await server.start()
    yield server
    await server.stop()


async def test_an_object_is_kept_just_while_something_about_it_is_wanted(server: ApiServer) -> None:
    def wanted(item: Any) -> str | None:
        return item["metadata"]["labels"].get("wanted")

    server.put(NODES, node("bad", wanted="yes"))
    server.put(NODES, node("good"))
    timing = ReflectorTiming(open=SECONDS, page=SECONDS, idle=SECONDS, watch=(600, 700), backoff=(0.01, 0.02))
    collection = Collection("nodes", NODES, fields="spec.unschedulable=true")
    reflector: Reflector[str] = Reflector(
        collection, wanted, key=lambda item: f"k/{item['metadata']['name']}", timing=timing
    )
    async with Client(ServiceAccount(server.url)) as client:
        task = asyncio.create_task(reflector.run(client))
        await until_async(lambda: server.streams(NODES))
        assert dict(reflector.records) == {"k/bad": "yes"}
        server.put(NODES, node("good", wanted="now"))
        await until_async(lambda: reflector.records.get("k/good") == "now")
        server.put(NODES, node("bad"))
        await until_async(lambda: "k/bad" not in reflector.records)
        server.delete(NODES, "good")
        await until_async(lambda: not reflector.records)
        task.cancel()
        await asyncio.wait([task])
    queries = [*server.asked(NODES, watch=False), *server.asked(NODES, watch=True)]
    assert {query["fieldSelector"] for query in queries} == {"spec.unschedulable=true"}


def test_one_name_in_two_namespaces_is_two_objects() -> None:
    keys = {key_of_namespaced({"metadata": {"name": "web", "namespace": name}}) for name in ("shop", "bank")}
    assert keys == {"shop/web", "bank/web"}
    with pytest.raises(ValueError, match="no name"):
        key_of_namespaced({"metadata": {"namespace": "shop"}})
