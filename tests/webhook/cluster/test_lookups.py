"""The look-ups: made only when a decision needs them, bounded, and None whatever goes wrong."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web

from server.kubernetes.client import Client
from server.kubernetes.credentials import ServiceAccount
from tests.support.until import SECONDS, until_async
from tests.webhook.cluster.apiserver import ApiServer, Fault, body, hang, namespace, node, refuse, status
from tests.webhook.cluster.conftest import Live
from webhook.cluster.file import FileCluster
from webhook.cluster.live import LiveCluster
from webhook.cluster.lookups import MAX_OBJECTS, Lookups
from webhook.cluster.protocol import Cluster
from webhook.configuration.model import Configuration
from webhook.decide import lookup
from webhook.request import Request, User
from webhook.snapshot import LISTED_KINDS, Fetched, Listing, PodLookup, WorkloadsLookup, snapshot_of_objects

_CONFIGURATION = Configuration()
_POD_PATH = "/api/v1/namespaces/shop/pods/web-1"
_PATHS = {
    kind: f"/{'apis' if '/' in version else 'api'}/{version}/namespaces/shop/{resource}"
    for kind, (version, resource) in LISTED_KINDS.items()
}
_POD: dict[str, Any] = {"kind": "Pod", "metadata": {"name": "web-1", "namespace": "shop"}, "spec": {"containers": []}}
_REVISION: dict[str, Any] = {
    "apiVersion": "serving.knative.dev/v1",
    "kind": "Revision",
    "metadata": {"name": "web-00001", "namespace": "shop"},
    "spec": {},
}
_SUITED = node("snp-0", **{"amd.feature.node.kubernetes.io/snp": "true"})
_OBJECTS = [namespace("shop", "enforce"), namespace("free"), node("plain-0"), _SUITED, _POD, _REVISION]
_SNAPSHOT = snapshot_of_objects(_OBJECTS)

_BINDING = Request(
    uid="u",
    path="/validate/binding",
    kind=("", "v1", "Binding"),
    resource=("", "v1", "pods"),
    subresource="binding",
    operation="CREATE",
    name="web-1",
    namespace="shop",
    user=User("dev"),
    object={"metadata": {"name": "web-1"}, "target": {"kind": "Node", "name": "plain-0"}},
)
_TIGHTENED = Request(
    uid="u",
    path="/validate/namespace",
    kind=("", "v1", "Namespace"),
    resource=("", "v1", "namespaces"),
    subresource="",
    operation="UPDATE",
    name="shop",
    namespace="shop",
    user=User("dev"),
    object=namespace("shop", "enforce"),
    old_object=namespace("shop", "audit"),
)
_THE_POD = PodLookup("shop", "web-1")
_THE_WORKLOADS = WorkloadsLookup("shop")


def _list(*items: object, **metadata: str) -> Fault:
    return body(json.dumps({"kind": "List", "metadata": metadata, "items": items}).encode())


def _listed(fetched: Fetched) -> dict[str, Listing]:
    assert fetched.workloads is not None
    assert [each.kind for each in fetched.workloads] == list(LISTED_KINDS)
    return {each.kind: each for each in fetched.workloads}


@pytest.fixture
async def client(server: ApiServer) -> AsyncIterator[Client]:
    async with Client(ServiceAccount(server.url)) as client:
        yield client


@pytest.fixture
def lookups(client: Client) -> Lookups:
    """With more time than an answer takes on a busy machine."""
    return Lookups(client, seconds=60)


@pytest.fixture
def hurried(client: Client) -> Lookups:
    """For servers that hang."""
    return Lookups(client, seconds=0.3)


async def test_a_look_up_finds_the_pod_of_a_binding(server: ApiServer, lookups: Lookups) -> None:
    server.faults[_POD_PATH].append(body(json.dumps(_POD).encode()))
    assert await lookups.look_up(_THE_POD) == Fetched(pod=_POD)


async def test_a_look_up_lists_each_kind_of_the_namespace(server: ApiServer, lookups: Lookups) -> None:
    """The API server leaves the kind of a list's items out; `managedFields` are of no use here."""
    for kind, path in _PATHS.items():
        metadata = {"name": kind.lower(), "labels": {"a": "b"}, "managedFields": [{"manager": "x"}], "uid": "1"}
        server.faults[path].append(_list({"metadata": metadata, "spec": {"of": kind}, "status": {"phase": "Running"}}))
    found = _listed(await lookups.look_up(_THE_WORKLOADS))
    for kind, (version, _) in LISTED_KINDS.items():
        (item,) = found[kind].items or ()
        assert item["metadata"] == {"name": kind.lower(), "labels": {"a": "b"}}
        assert (item["apiVersion"], item["kind"], item["spec"]) == (version, kind, {"of": kind})
        assert item["status"]["phase"] == "Running"
    queries = {path: query for path, query, _headers in server.requests}
    routable = {"labelSelector": "serving.knative.dev/routingState!=reserve"}
    assert queries == {
        path: {**(routable if kind == "Revision" else {}), "limit": str(MAX_OBJECTS)} for kind, path in _PATHS.items()
    }


async def test_a_kind_that_cannot_be_listed_leaves_the_others(server: ApiServer, lookups: Lookups) -> None:
    """A cluster without Knative, or an account that may not list pods."""
    for kind, path in _PATHS.items():
        server.faults[path].append(status(404) if kind == "Revision" else _list(_REVISION))
    found = _listed(await lookups.look_up(_THE_WORKLOADS))
    assert [kind for kind, listing in found.items() if listing.items is None] == ["Revision"]


async def test_all_kinds_together_take_no_longer_than_one(server: ApiServer, hurried: Lookups) -> None:
    for path in _PATHS.values():
        server.faults[path].append(hang)
    async with asyncio.timeout(SECONDS):
        found = _listed(await hurried.look_up(_THE_WORKLOADS))
    assert all(listing.items is None for listing in found.values())
    assert len(server.requests) < len(_PATHS), "the time of the others was over before their turn"


@pytest.mark.parametrize(
    "request_",
    [
        replace(_BINDING, namespace="free"),
        replace(_BINDING, object={"metadata": {"name": "web-1"}, "target": {"name": "snp-0"}}),
        replace(_BINDING, object={"metadata": [], "target": {"name": "plain-0"}}),
        replace(_BINDING, object={"metadata": {"name": "web-1"}, "target": 7}),
        replace(_BINDING, object=None),
        replace(_BINDING, path="/validate/pod"),
        replace(_BINDING, path="/no/such/path"),
        replace(_BINDING, kind=("", "v1", "Pod")),
        replace(_TIGHTENED, old_object=namespace("shop", "enforce")),
        replace(_TIGHTENED, operation="CREATE"),
        replace(_TIGHTENED, object={"metadata": {"labels": 7}}),
        replace(_TIGHTENED, path="/validate/connect"),
    ],
)
def test_other_decisions_need_no_look_up(request_: Request) -> None:
    assert lookup(request_, _CONFIGURATION, _SNAPSHOT) is None


def test_a_binding_to_a_node_that_fits_no_profile_needs_its_pod() -> None:
    assert lookup(_BINDING, _CONFIGURATION, _SNAPSHOT) == _THE_POD


def test_a_legacy_binding_names_its_pod_in_the_object() -> None:
    assert lookup(replace(_BINDING, name=""), _CONFIGURATION, _SNAPSHOT) == _THE_POD


def test_tightening_a_namespace_needs_its_revisions() -> None:
    assert lookup(_TIGHTENED, _CONFIGURATION, _SNAPSHOT) == _THE_WORKLOADS


_BROKEN: list[Fault] = [
    status(404),
    status(403),
    status(500),
    hang,
    refuse,
    body(b""),
    body(b"[]"),
    body(b"{}"),
    body(b'{"hunter2'),
    body(b'{"metadata": {"name": "other", "namespace": "shop"}, "items": {}}'),
    # What would do, but for its size.
    body(b'{"metadata":{"name":"web-1","namespace":"shop"},"items":[]' + b" " * (20 << 20) + b"}"),
]


@pytest.mark.parametrize("fault", _BROKEN)
async def test_every_failure_is_none_and_logged_without_content(
    server: ApiServer, lookups: Lookups, hurried: Lookups, fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    lookups = hurried if fault is hang else lookups
    caplog.set_level(logging.DEBUG, "morphisms")
    server.faults[_POD_PATH].extend([fault] * 2)
    for path in _PATHS.values():
        server.faults[path].extend([fault] * 2)
    async with asyncio.timeout(SECONDS):  # a server that hangs does so until the test ends
        assert await lookups.look_up(_THE_POD) == Fetched()
        found = _listed(await lookups.look_up(_THE_WORKLOADS))
    assert [listing.items for listing in found.values()] == [None] * len(LISTED_KINDS)
    logged: list[dict[str, object]] = [record.fields for record in caplog.records if record.msg == "lookup_failed"]  # type: ignore[attr-defined]
    assert sorted(str(fields["lookup"]) for fields in logged) == sorted(
        ["pod", *(resource for _, resource in LISTED_KINDS.values())]
    )
    assert "hunter2" not in repr(logged)


async def test_a_slow_body_is_cut_off(server: ApiServer, hurried: Lookups) -> None:
    async def trickle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b'{"metadata":')
        return await hang(request)

    server.faults[_POD_PATH].append(trickle)
    assert await hurried.pod("shop", "web-1") is None


async def test_more_than_fit_one_call_is_told_apart_from_all(server: ApiServer, lookups: Lookups) -> None:
    for path in _PATHS.values():
        server.faults[path].append(_list(_REVISION, **{"continue": "more"}))
    found = _listed(await lookups.look_up(_THE_WORKLOADS))
    assert [listing.is_whole for listing in found.values()] == [False] * len(LISTED_KINDS)


@pytest.mark.parametrize("name", ["..", "", "a/b", "web-1?x=", "Web", "a" * 300, "web-1\n"])
async def test_only_valid_names_become_paths(server: ApiServer, lookups: Lookups, name: str) -> None:
    assert await lookups.pod("shop", name) is None
    assert await lookups.pod(name, "web-1") is None
    assert all(listing.items is None for listing in await lookups.workloads(name))
    assert not server.requests


async def test_concurrent_look_ups_are_bounded(server: ApiServer, hurried: Lookups) -> None:
    server.faults[_POD_PATH].extend([hang] * 40)
    answers = await asyncio.gather(*(hurried.pod("shop", "web-1") for _ in range(40)))
    assert answers == [None] * 40
    assert len(server.requests) <= 16


async def test_a_snapshot_file_answers_like_the_cluster(server: ApiServer, lookups: Lookups) -> None:
    server.faults[_POD_PATH].append(body(json.dumps(_POD).encode()))
    for kind, path in _PATHS.items():
        server.faults[path].append(_list(*([_REVISION] if kind == "Revision" else [])))
    file = FileCluster(_OBJECTS)
    assert replace(file.current(), now=None) == _SNAPSHOT
    assert await file.look_up(_THE_POD) == await lookups.look_up(_THE_POD) == Fetched(pod=_POD)
    found, live = _listed(await file.look_up(_THE_WORKLOADS)), _listed(await lookups.look_up(_THE_WORKLOADS))
    assert found["Revision"].items == (_REVISION,)
    assert live["Revision"].items == ({**_REVISION, "status": {}},)
    assert found["Deployment"] == live["Deployment"] == Listing("Deployment", ())
    assert await file.look_up(PodLookup("free", "web-1")) == Fetched()


async def test_the_live_cluster_looks_up_while_it_runs(live: Live) -> None:
    assert await live.cluster.look_up(_THE_POD) == Fetched()
    await live.opened()
    live.server.faults[_POD_PATH].append(body(json.dumps(_POD).encode()))
    assert await live.cluster.look_up(_THE_POD) == Fetched(pod=_POD)
    await live.stop()
    assert await live.cluster.look_up(_THE_POD) == Fetched()


async def test_a_snapshot_file_is_a_cluster_in_which_only_time_changes() -> None:
    cluster: Cluster = FileCluster(_OBJECTS)
    view = cluster.current()
    cluster.configured(_CONFIGURATION)
    assert cluster.problem() is None
    after = cluster.current()
    assert replace(after, now=view.now) == view
    assert view.now is not None
    await until_async(lambda: cluster.current().now not in (None, view.now))
    running = asyncio.ensure_future(cluster.run())
    await asyncio.wait([running], timeout=0.01)
    assert not running.done()
    running.cancel()


def test_the_live_cluster_satisfies_the_protocol() -> None:
    cluster: Cluster = LiveCluster(_CONFIGURATION)
    assert cluster.problem()
