"""Lists arrive page by page and whole, also where their pages expire meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import chain
from typing import Any

import pytest

from server.kubernetes.client import Client
from server.kubernetes.credentials import ServiceAccount
from server.kubernetes.errors import AnswerError, StatusError
from tests.webhook.cluster.apiserver import NODES, ApiServer, body, node, status
from webhook.scanner.kinds import SCANNED_KINDS, ScannedKind
from webhook.scanner.lister import AbsentKindError, ClusterLister

_KIND = ScannedKind("v1", "Node", "nodes")


@pytest.fixture
async def server() -> AsyncIterator[ApiServer]:
    server = ApiServer()
    for number in range(7):
        server.put(NODES, node(f"node-{number}"))
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def client(server: ApiServer) -> AsyncIterator[Client]:
    async with Client(ServiceAccount(server.url)) as client:
        yield client


async def _names(lister: ClusterLister) -> list[list[str]]:
    return [[item["metadata"]["name"] for item in page] async for page in lister.pages(_KIND)]


async def test_a_long_list_comes_in_pages(server: ApiServer, client: Client) -> None:
    pages = await _names(ClusterLister(client, page_items=3))
    assert [len(page) for page in pages] == [3, 3, 1]
    assert [*chain.from_iterable(pages)] == [f"node-{number}" for number in range(7)]
    assert [query["limit"] for query in server.asked(NODES, watch=False)] == ["3"] * 3


async def test_items_say_their_kind_and_leave_out_what_nothing_reads(server: ApiServer, client: Client) -> None:
    item = node("managed")
    item["metadata"]["managedFields"] = [{"manager": "kubelet"}]
    server.put(NODES, {key: value for key, value in item.items() if key not in ("kind", "apiVersion")})
    found = [item async for page in ClusterLister(client).pages(_KIND) for item in page]
    assert {(each["apiVersion"], each["kind"]) for each in found} == {("v1", "Node")}
    assert not any("managedFields" in each["metadata"] for each in found)


async def test_a_list_whose_pages_expire_is_still_whole_and_names_nothing_twice(
    server: ApiServer, client: Client
) -> None:
    lister = ClusterLister(client, page_items=3)
    given: list[str] = []
    async for page in lister.pages(_KIND):
        given += [item["metadata"]["name"] for item in page]
        if len(given) == 3:
            server.put(NODES, node("late"))
            server.compact()
    assert sorted(given) == sorted(["late", *(f"node-{number}" for number in range(7))])


async def test_a_list_that_expires_again_and_again_is_an_error(server: ApiServer, client: Client) -> None:
    server.faults[NODES].extend([status(410)] * 9)
    with pytest.raises(StatusError):
        await _names(ClusterLister(client))


async def test_a_kind_that_the_cluster_lacks_is_told_apart_from_a_refusal(server: ApiServer, client: Client) -> None:
    lister = ClusterLister(client)
    server.faults[NODES].append(status(404))
    with pytest.raises(AbsentKindError):
        await _names(lister)
    server.faults[NODES].append(status(403))
    with pytest.raises(StatusError) as refused:
        await _names(lister)
    assert refused.value.status == 403


@pytest.mark.parametrize("content", [b"[]", b"{", b'{"metadata": {}, "items": [5]}'], ids=["list", "cut", "number"])
async def test_an_answer_that_is_no_list_is_an_error_and_never_an_empty_cluster(
    server: ApiServer, client: Client, content: bytes
) -> None:
    server.faults[NODES].append(body(content))
    with pytest.raises(AnswerError):
        await _names(ClusterLister(client))


def test_paths_are_those_of_the_api() -> None:
    paths: dict[Any, str] = {(kind.api_version, kind.kind): kind.path("shop") for kind in SCANNED_KINDS}
    assert paths["v1", "Pod"] == "/api/v1/namespaces/shop/pods"
    assert paths["serving.knative.dev/v1", "Service"] == "/apis/serving.knative.dev/v1/namespaces/shop/services"
    assert SCANNED_KINDS[0].path() == "/apis/serving.knative.dev/v1/services"
