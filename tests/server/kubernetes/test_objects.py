"""One object that is kept current. What a reflector survives is tested with the three of the live cluster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from server.kubernetes.client import Client
from server.kubernetes.credentials import ServiceAccount
from server.kubernetes.objects import ObjectRef, WatchedObject, version_of
from server.kubernetes.reflector import ReflectorTiming
from tests.support.until import SECONDS
from tests.webhook.cluster.apiserver import NAMESPACES, ApiServer, namespace, status

REF = ObjectRef(NAMESPACES, "shop")
TIMING = ReflectorTiming(open=SECONDS, page=SECONDS, idle=SECONDS, watch=(600, 700), backoff=(0.01, 0.02))


class Following:
    """A `WatchedObject` that runs, and a way to wait for it."""

    def __init__(self) -> None:
        self.watched = WatchedObject(REF, self._note, TIMING)
        self.changes = 0
        self._changed = asyncio.Event()

    def _note(self) -> None:
        self.changes += 1
        self._changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(SECONDS):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    @property
    def labels(self) -> Any:
        return None if self.watched.value is None else self.watched.value["metadata"]["labels"]


@pytest.fixture
async def server() -> AsyncIterator[ApiServer]:
    server = ApiServer()
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def following(server: ApiServer) -> AsyncIterator[Following]:
    following = Following()
    async with Client(ServiceAccount(server.url)) as client:
        task = asyncio.create_task(following.watched.run(client))
        yield following
        task.cancel()
        await asyncio.wait([task])


async def test_it_knows_whether_the_object_exists(server: ApiServer, following: Following) -> None:
    assert not following.watched.is_known
    await following.until(lambda: following.watched.is_known)
    assert (following.watched.value, following.changes) == (None, 1)
    server.put(NAMESPACES, namespace("shop", "audit"))
    await following.until(lambda: following.watched.value is not None)
    assert following.labels["morphisms.dev/mode"] == "audit"
    server.delete(NAMESPACES, "shop")
    await following.until(lambda: following.watched.value is None)
    assert following.watched.is_known


async def test_it_selects_the_one_object_by_name(server: ApiServer, following: Following) -> None:
    await following.until(lambda: following.watched.is_known)
    server.put(NAMESPACES, namespace("other"))  # this stand-in sends it nevertheless
    server.put(NAMESPACES, namespace("shop"))
    await following.until(lambda: following.watched.value is not None)
    assert following.watched.value is not None
    assert following.watched.value["metadata"]["name"] == "shop"
    queries = server.asked(NAMESPACES, watch=False) + server.asked(NAMESPACES, watch=True)
    assert {query["fieldSelector"] for query in queries} == {"metadata.name=shop"}


async def test_the_answer_to_a_write_counts_before_the_watch_brings_it(server: ApiServer, following: Following) -> None:
    await following.until(lambda: following.watched.is_known)
    before = following.changes
    written = namespace("shop", "enforce")
    following.watched.accept(written)
    following.watched.accept(written)
    assert following.watched.value == written
    assert following.changes == before + 1


async def test_it_lists_again_after_its_version_is_gone(server: ApiServer, following: Following) -> None:
    server.put(NAMESPACES, namespace("shop", "audit"))
    await following.until(lambda: following.watched.value is not None)
    server.faults[NAMESPACES].append(status(410))
    server.cut(NAMESPACES, b"")
    server.put(NAMESPACES, namespace("shop", "enforce"))
    await following.until(lambda: following.labels["morphisms.dev/mode"] == "enforce")


def test_a_reference_knows_its_path_and_resource() -> None:
    assert (REF.path, REF.resource) == ("/api/v1/namespaces/shop", "namespaces")


@pytest.mark.parametrize(
    ("value", "version"),
    [(None, ""), ({}, ""), ({"metadata": []}, ""), ({"metadata": {"resourceVersion": 7}}, "")],
)
def test_a_version_is_text_or_empty(value: Any, version: str) -> None:
    assert version_of(value) == version
    assert version_of({"metadata": {"resourceVersion": "7"}}) == "7"
