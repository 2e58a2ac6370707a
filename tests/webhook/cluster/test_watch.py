"""The live cluster against a real server: what it keeps, and that nothing the server does ends it."""

from __future__ import annotations

import asyncio
import json
import logging
import math
from typing import Any

import pytest
from aiohttp import web

from tests.webhook.cluster.apiserver import (
    CLASSES,
    NAMESPACES,
    NODES,
    ApiServer,
    Fault,
    body,
    hang,
    namespace,
    node,
    refuse,
    runtime_class,
    status,
)
from tests.webhook.cluster.conftest import CONFIGURATION, Live
from webhook.configuration.model import Configuration
from webhook.configuration.sections import Reserved
from webhook.modes import Mode
from webhook.node_records import NodeRecord, Taint
from webhook.snapshot import RuntimeClassRecord

_TAINTS = (Taint("dedicated", "snp", "NoSchedule"),)


async def test_the_view_keeps_only_the_fields_that_decisions_need(live: Live) -> None:
    live.server.put(NAMESPACES, namespace("plain"))
    live.server.put(NODES, node("n1", snp="true", other="x"))
    live.server.put(CLASSES, runtime_class("kata"))
    assert not live.cluster.synced
    assert live.cluster.problem() == "not listed yet: namespaces, nodes, runtimeclasses"
    assert live.cluster.current().age_seconds == math.inf
    await live.opened()
    snapshot = live.cluster.current()
    assert live.cluster.synced
    assert live.cluster.problem() is None
    assert snapshot.namespaces == {"shop": Mode.ENFORCE, "plain": Mode.ABSENT}
    assert snapshot.nodes == {"n1": NodeRecord("n1", (("snp", "true"),), _TAINTS)}
    assert snapshot.runtime_classes == {"kata": RuntimeClassRecord("kata", "kata", (("snp", "true"),))}
    assert snapshot.unlisted is Mode.ENFORCE
    assert snapshot.age_seconds == 0.0


async def test_is_not_synced_while_one_of_the_three_is_missing(live: Live) -> None:
    live.server.faults[CLASSES].extend([hang] * 50)
    live.start()
    await live.observed.until(
        lambda: live.observed.counts["nodes", "opened"] > 0 < live.observed.counts["namespaces", "opened"]
    )
    assert live.cluster.problem() == "not listed yet: runtimeclasses"
    assert live.cluster.age_seconds == math.inf


async def test_lists_in_pages(live: Live) -> None:
    for number in range(201):
        live.server.put(NODES, node(f"n{number:03}"))
    await live.opened()
    assert len(live.cluster.current().nodes) == 201
    lists = live.server.asked(NODES, watch=False)
    assert [query["limit"] for query in lists] == ["100", "100", "100"]
    assert ["continue" in query for query in lists] == [False, True, True]
    assert all("resourceVersion" not in query for query in lists)


async def test_follows_changes_and_never_alters_what_it_gave_out(live: Live) -> None:
    live.server.put(NODES, node("n1"))
    await live.opened()
    before = live.cluster.current()
    live.server.put(NODES, node("n1", snp="true"))
    await live.observed.next("nodes", "modified")
    live.server.put(NODES, node("n2"))
    await live.observed.next("nodes", "added")
    after = live.cluster.current()
    live.server.delete(NODES, "n1")
    await live.observed.next("nodes", "deleted")
    assert dict(before.nodes) == {"n1": NodeRecord("n1", (), _TAINTS)}
    assert after.nodes["n1"].labels == (("snp", "true"),)
    assert set(after.nodes) == {"n1", "n2"}
    assert set(live.cluster.current().nodes) == {"n2"}
    with pytest.raises(TypeError):
        after.nodes["n3"] = after.nodes["n1"]  # type: ignore[index]


async def test_rebuilds_the_view_only_for_a_change(live: Live) -> None:
    live.server.put(NODES, node("n1"))
    await live.opened()
    before = live.cluster.current().nodes
    live.server.put(NODES, node("n1", unrelated="heartbeat"))
    await live.observed.next("nodes", "modified")
    assert live.cluster.current().nodes is before
    live.server.put(NODES, node("n1", pool="a"))
    await live.observed.next("nodes", "modified")
    assert live.cluster.current().nodes is not before


async def test_asks_for_bookmarks_and_an_end(live: Live) -> None:
    await live.opened()
    (query,) = live.server.asked(NODES, watch=True)
    assert query["allowWatchBookmarks"] == "true"
    assert 600 <= int(query["timeoutSeconds"]) <= 700


@pytest.mark.parametrize("partial", [b'{"type":"ADDED","object":{"metadata":{"na', b""])
async def test_a_watch_resumes_from_the_last_version_after_an_interruption(live: Live, partial: bytes) -> None:
    await live.opened()
    version = live.server.bookmark(NODES)
    await live.observed.next("nodes", "bookmark")
    live.server.faults[NODES].append(refuse)
    live.server.cut(NODES, partial)
    live.server.put(NODES, node("meanwhile"))
    await live.observed.until(lambda: "meanwhile" in live.cluster.current().nodes)
    assert live.server.asked(NODES, watch=True)[-1]["resourceVersion"] == version
    assert len(live.server.asked(NODES, watch=False)) == 1


async def test_a_watch_reopens_immediately_when_the_server_closes_it(live: Live) -> None:
    await live.opened()
    live.clock.now += 60
    live.server.end(NODES)
    await live.observed.next("nodes", "opened")
    assert not live.observed.counts["nodes", "interrupted"]
    assert len(live.server.asked(NODES, watch=False)) == 1


async def test_backs_off_when_watches_end_too_early(live: Live) -> None:
    await live.opened()
    live.server.end(NODES)
    await live.observed.next("nodes", "opened")
    assert live.observed.counts["nodes", "interrupted"] == 1


@pytest.mark.parametrize("as_event", [False, True])
async def test_lists_again_when_its_version_is_gone(live: Live, as_event: bool) -> None:
    live.server.gone_as_event = as_event
    live.server.put(NODES, node("stays"))
    live.server.put(NODES, node("goes"))
    await live.opened()
    live.server.faults[NODES].append(status(503))
    live.server.cut(NODES, b"")
    live.server.delete(NODES, "goes")
    live.server.put(NODES, node("comes"))
    live.server.compact()
    await live.observed.next("nodes", "listed")
    assert set(live.cluster.current().nodes) == {"stays", "comes"}


async def test_lists_again_when_a_continue_token_is_gone(live: Live) -> None:
    live.server.page_limit = 2
    for name in "abc":
        live.server.put(NODES, node(name))

    async def compact_first(request: web.Request) -> web.StreamResponse:
        live.server.compact()
        return await live.server._list(request)

    async def truthful(request: web.Request) -> web.StreamResponse:
        return await live.server._list(request)

    live.server.faults[NODES].extend([truthful, compact_first])
    await live.opened()
    assert set(live.cluster.current().nodes) == {"a", "b", "c"}
    assert ["continue" in query for query in live.server.asked(NODES, watch=False)] == [False, True, False, True]


@pytest.mark.parametrize(
    "fault",
    [status(429), status(500), status(401), refuse, hang, body(b"<html>"), body(b"{}"), body(b'{"metadata":{}}')],
)
async def test_retries_a_failing_list(live: Live, fault: Fault) -> None:
    live.server.put(NODES, node("n1"))
    live.server.faults[NODES].extend([fault, fault])
    await live.opened()
    assert set(live.cluster.current().nodes) == {"n1"}
    assert not live.server.faults[NODES]
    if fault is hang:  # an honest answer may come too late as well
        assert live.observed.counts["nodes", "interrupted"] >= 2
        return
    assert live.observed.counts["nodes", "listed"] == 1
    # The client itself repeats a GET whose connection it reused.
    assert live.observed.counts["nodes", "interrupted"] >= (1 if fault is refuse else 2)


@pytest.mark.parametrize(
    ("fault", "away"), [(status(429), False), (status(403), False), (status(500), True), (refuse, True), (hang, True)]
)
async def test_retries_a_failing_watch_and_lists_again_when_the_server_was_away(
    live: Live, fault: Fault, away: bool
) -> None:
    await live.opened()
    live.server.faults[NODES].extend([fault, fault])
    live.server.cut(NODES, b"")
    await live.observed.next("nodes", "opened")
    assert not live.server.faults[NODES]
    assert live.observed.counts["nodes", "interrupted"] >= 2
    listed = live.observed.counts["nodes", "listed"]
    # Where it hangs, an honest answer may come too late as well.
    assert listed >= 2 if fault is hang else listed == (2 if away else 1)


async def test_retry_after_is_respected_up_to_a_limit(live: Live, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    live.server.faults[NODES].extend([status(429, "0.015"), status(429, "86400"), status(429, "Wed, 21 Oct 2026")])
    await live.opened()
    fields = [record.fields for record in caplog.records if record.msg == "watch_interrupted"]  # type: ignore[attr-defined]
    told, limited, unreadable = [each for each in fields if each.get("status") == 429]
    assert 0.015 <= told["retry_seconds"] <= 0.02
    assert limited["retry_seconds"] == 0.02
    assert unreadable["retry_seconds"] <= 0.02
    assert told["failures"] < limited["failures"] < unreadable["failures"]


@pytest.mark.parametrize("fault", [hang])
async def test_its_age_grows_while_the_server_hangs_and_falls_when_it_recovers(live: Live, fault: Fault) -> None:
    await live.opened()
    live.clock.now += 30
    live.server.bookmark(NODES)
    await live.observed.next("nodes", "bookmark")
    assert live.cluster.age_seconds == 30  # of the oldest watch
    for path, resource in ((NAMESPACES, "namespaces"), (CLASSES, "runtimeclasses")):
        live.server.bookmark(path)
        await live.observed.next(resource, "bookmark")
    assert live.cluster.age_seconds == 0
    live.server.faults[NODES].extend([fault, fault])
    live.server.cut(NODES, b"")
    live.clock.now += 400
    await live.observed.next("nodes", "interrupted", times=3)
    assert live.cluster.current().age_seconds == 400
    for path, resource in ((NAMESPACES, "namespaces"), (CLASSES, "runtimeclasses")):
        live.server.bookmark(path)
        await live.observed.next(resource, "bookmark")
    await live.observed.until(lambda: live.cluster.age_seconds == 0)


async def test_a_list_is_as_old_as_its_start(live: Live) -> None:
    async def slow(request: web.Request) -> web.StreamResponse:
        live.clock.now += 7
        return await live.server._list(request)

    live.server.faults[NODES].append(slow)
    live.server.faults[NODES].extend([hang] * 50)
    live.start()
    await live.observed.next("nodes", "listed")
    await live.observed.until(
        lambda: live.observed.counts["namespaces", "opened"] > 0 < live.observed.counts["runtimeclasses", "opened"]
    )
    assert live.cluster.age_seconds == 7


async def test_a_silent_connection_is_noticed(server: ApiServer) -> None:
    live = Live(server)
    live.cluster._nodes._timing = type(live.cluster._nodes._timing)(idle=0.1, backoff=(0.01, 0.02))
    try:
        await live.opened()
        await live.observed.next("nodes", "opened", times=2)
    finally:
        await live.stop()


def _event(what: Any, item: Any) -> bytes:
    return json.dumps({"type": what, "object": item}).encode() + b"\n"


@pytest.mark.parametrize(
    "line",
    [
        b"not json\n",
        b"\n",
        b"{}\n",
        b"[1]\n",
        b'{"type":"ADDED","object":' + b"[" * 5000 + b"]" * 5000 + b"}\n",
        b'{"type":"ADDED","object":"\xff"}\n',
        _event(7, {}),
        _event("ADDED", []),
        _event("ERROR", {"code": 500}),
        _event("ERROR", {"code": "text"}),
        pytest.param(b"x" * (5 << 20) + b"\n", id="5 MiB"),
    ],
)
async def test_lists_again_when_part_of_the_stream_is_lost(live: Live, line: bytes) -> None:
    live.server.put(NODES, node("n1"))
    await live.opened()
    live.server.send(NODES, line)
    await live.observed.next("nodes", "listed")
    await live.observed.next("nodes", "opened")
    live.server.put(NODES, node("n2"))
    await live.observed.next("nodes", "added")
    assert set(live.cluster.current().nodes) == {"n1", "n2"}


@pytest.mark.parametrize(
    "line",
    [
        _event("ADDED", {}),
        _event("ADDED", {"metadata": []}),
        _event("ADDED", {"metadata": {"name": 7}}),
        _event("ADDED", {"metadata": {"name": ""}}),
        _event("ADDED", {"metadata": {"name": "odd"}, "spec": {"taints": 5}}),
        _event("DELETED", {"metadata": None}),
        _event("EXPLODED", {"metadata": {"name": "n1"}}),
    ],
)
async def test_skips_an_object_that_it_cannot_read(live: Live, line: bytes) -> None:
    live.server.put(NODES, node("n1"))
    await live.opened()
    live.server.send(NODES, line)
    await live.observed.next("nodes", "malformed")
    assert set(live.cluster.current().nodes) == {"n1"}
    live.server.put(NODES, node("n2"))
    await live.observed.next("nodes", "added")
    assert len(live.server.asked(NODES, watch=False)) == 1


async def test_forgets_an_object_that_it_can_no_longer_read(live: Live) -> None:
    live.server.put(NODES, node("n1"))
    await live.opened()
    live.server.put(NODES, {"metadata": {"name": "n1"}, "spec": {"taints": 5}})
    await live.observed.next("nodes", "malformed")
    assert not live.cluster.current().nodes


async def test_a_list_survives_its_malformed_items(live: Live) -> None:
    odd: list[Any] = [7, None, {}, {"metadata": {"name": []}}, {"metadata": {"name": "x"}, "spec": {"taints": 5}}]
    page = {"metadata": {"resourceVersion": "100"}, "items": [*odd, node("good")]}
    live.server.faults[NODES].append(body(json.dumps(page).encode()))
    await live.opened()
    assert set(live.cluster.current().nodes) == {"good"}
    assert live.observed.counts["nodes", "malformed"] == len(odd)


async def test_odd_labels_are_left_out(live: Live) -> None:
    item = {"metadata": {"name": "n1", "labels": {"snp": ["true"], "pool": "a"}}, "spec": None}
    live.server.put(NODES, item)
    await live.opened()
    assert live.cluster.current().nodes == {"n1": NodeRecord("n1", (("pool", "a"),))}


async def test_lists_nodes_again_for_other_label_keys(live: Live) -> None:
    live.server.put(NODES, node("n1", snp="true", zone="a"))
    await live.opened()
    live.cluster.configured(CONFIGURATION.model_copy(update={"cluster": "other"}))
    live.server.bookmark(NODES)
    await live.observed.next("nodes", "bookmark")
    live.cluster.configured(Configuration(reserved=Reserved(keys=("zone",))))
    assert live.cluster.synced
    await live.observed.next("nodes", "listed")
    assert live.cluster.current().nodes["n1"].labels == (("zone", "a"),)
    assert len(live.server.asked(NODES, watch=False)) == 2
    assert len(live.server.asked(NAMESPACES, watch=False)) == 1


async def test_other_label_keys_during_a_list_restart_it(live: Live) -> None:
    live.server.put(NODES, node("n1", snp="true", zone="a"))
    arrived = asyncio.Event()

    async def never(request: web.Request) -> web.StreamResponse:
        arrived.set()
        return await hang(request)

    live.server.faults[NODES].append(never)
    live.start()
    await arrived.wait()
    live.cluster.configured(Configuration(reserved=Reserved(keys=("zone",))))
    await live.observed.next("nodes", "listed")
    assert live.cluster.current().nodes["n1"].labels == (("zone", "a"),)
    assert not live.observed.counts["nodes", "interrupted"]


async def test_stopping_is_clean_in_every_phase(live: Live) -> None:
    live.server.faults[CLASSES].append(hang)
    live.start()
    await live.observed.until(lambda: live.observed.counts["nodes", "opened"] > 0)
    await live.stop()
    assert {task for task in asyncio.all_tasks() if "Reflector" in repr(task.get_coro())} == set()


async def test_a_failed_connection_is_reported(live: Live) -> None:
    async def connect() -> Any:
        raise OSError("no cluster")

    live.cluster._connect = connect
    with pytest.raises(OSError, match="no cluster"):
        await live.cluster.run()


async def test_logs_hold_nothing_from_the_cluster(live: Live, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    live.server.put(NODES, node("hunter2", snp="hunter2"))
    await live.opened()
    live.server.send(NODES, b'{"hunter2\n')
    await live.observed.next("nodes", "opened")
    ours: list[dict[str, object]] = [record.fields for record in caplog.records if record.name == "morphisms"]  # type: ignore[attr-defined]
    assert ours
    assert "hunter2" not in repr(ours)
