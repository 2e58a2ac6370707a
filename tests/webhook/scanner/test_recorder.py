"""Events are few: one for each object and code, counted up, and bounded in rate, also after a restart."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from server.kubernetes.client import Client
from server.kubernetes.credentials import ServiceAccount
from tests.webhook.scanner.store import Store, running
from webhook.scanner.events.recorder import AGAIN_SECONDS, REMIND_SECONDS, EventRecorder
from webhook.scanner.events.trouble import DENIED, INIT_FAILED, Trouble
from webhook.scanner.finding import ObjectId

Json = dict[str, Any]

_REPLICA_SET = ObjectId("apps/v1", "ReplicaSet", "shop", "web-5d9f", "u-rs")
_TROUBLE = Trouble(
    INIT_FAILED,
    "verifier-refused",
    "refused",
    ObjectId("v1", "Pod", "shop", "web-5d9f-x", "u-pod"),
    _REPLICA_SET,
    "web",
    "2027-01-01T00:00:05Z",
    "id-1",
)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    store = Store()
    metadata = {"name": "web-5d9f", "uid": "u-rs", "labels": {"serving.knative.dev/service": "web"}}
    owner = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": "u-dep", "controller": True}
    store.put("/apis/apps/v1/namespaces/shop/replicasets/web-5d9f", metadata={**metadata, "ownerReferences": [owner]})
    store.put("/apis/serving.knative.dev/v1/namespaces/shop/services/web", metadata={"name": "web", "uid": "u-svc"})
    async with running(store):
        yield store


@pytest.fixture
async def client(store: Store) -> AsyncIterator[Client]:
    async with Client(ServiceAccount(store.url)) as client:
        yield client


def _leads() -> bool:
    return True


async def test_a_failure_that_stays_is_written_once_and_again_before_the_event_expires(
    store: Store, client: Client
) -> None:
    clock = Clock()
    recorder = EventRecorder(client, clock=clock)
    for _ in range(5):
        await recorder.record([_TROUBLE], _leads)
        clock.now += AGAIN_SECONDS
    assert store.writes == {"POST": 1}
    clock.now += REMIND_SECONDS
    await recorder.record([_TROUBLE], _leads)
    (event,) = store.events
    assert event["count"] == 2
    assert event["involvedObject"]["uid"] == "u-svc"
    # What an Event of another controller tells is over, as far as is known.
    await recorder.record([replace(_TROUBLE, code="x", is_state=False)], _leads)
    clock.now += REMIND_SECONDS
    before = store.writes.total()
    await recorder.record([replace(_TROUBLE, code="x", is_state=False)], _leads)
    assert store.writes.total() == before


async def test_a_thousand_pods_of_one_service_make_one_event(store: Store, client: Client) -> None:
    recorder = EventRecorder(client, clock=Clock())
    await recorder.record([replace(_TROUBLE, correlation_id=f"id-{number}") for number in range(1000)], _leads)
    (event,) = store.events
    assert event["count"] == 1


async def test_it_is_told_again_when_it_fails_again_and_no_oftener_than_the_back_off(
    store: Store, client: Client
) -> None:
    clock = Clock()
    recorder = EventRecorder(client, clock=clock)
    await recorder.record([_TROUBLE], _leads)
    again = replace(_TROUBLE, correlation_id="id-2")  # within the same second
    await recorder.record([again], _leads)
    assert store.writes.total() == 1
    clock.now += AGAIN_SECONDS
    await recorder.record([again], _leads)
    (event,) = store.events
    assert event["metadata"]["annotations"]["morphisms.dev/correlation-id"] == "id-2"
    assert event["count"] == 2


async def test_a_scanner_that_starts_again_tells_nothing_twice(store: Store, client: Client) -> None:
    await EventRecorder(client, clock=Clock()).record([_TROUBLE], _leads)
    await EventRecorder(client, clock=Clock()).record([replace(_TROUBLE, at="2020-01-01T00:00:00Z")], _leads)
    (event,) = store.events
    assert event["count"] == 1
    await EventRecorder(client, clock=Clock()).record([replace(_TROUBLE, at="2999-01-01T00:00:00Z")], _leads)
    (event,) = store.events
    assert event["count"] == 2


async def test_many_failures_at_once_are_bounded_in_rate_and_none_is_lost(store: Store, client: Client) -> None:
    clock = Clock()
    recorder = EventRecorder(client, clock=clock)
    troubles = [replace(_TROUBLE, code=f"code-{number}") for number in range(120)]
    await recorder.record(troubles, _leads)
    assert len(store.events) == 50
    for _ in range(20):
        clock.now += 1
        await recorder.record(troubles, _leads)
    assert len(store.events) == 120


async def test_a_replica_that_stops_leading_writes_nothing_more(store: Store, client: Client) -> None:
    turns = iter([True, True, False, False])
    troubles = [replace(_TROUBLE, code=f"code-{number}") for number in range(4)]
    await EventRecorder(client, clock=Clock()).record(troubles, lambda: next(turns))
    assert len(store.events) == 2


async def test_a_write_that_fails_is_tried_again(store: Store, client: Client) -> None:
    outcomes: Counter[str] = Counter()
    clock = Clock()
    recorder = EventRecorder(client, clock=clock, wrote=lambda _reason, outcome: outcomes.update([outcome]))
    store.fails = [500]
    await recorder.record([_TROUBLE], _leads)
    assert not store.events
    clock.now += AGAIN_SECONDS
    await recorder.record([_TROUBLE], _leads)
    assert len(store.events) == 1
    assert outcomes == {"failed": 1, "written": 1}


@pytest.mark.parametrize(
    ("trouble", "uid"),
    [
        pytest.param(_TROUBLE, "u-svc", id="service"),
        pytest.param(replace(_TROUBLE, service="gone"), "u-dep", id="deployment"),
        pytest.param(replace(_TROUBLE, service="../../secrets/x"), "u-dep", id="no-name"),
        pytest.param(
            replace(_TROUBLE, reason=DENIED, source=_REPLICA_SET, owner=None, service=""), "u-svc", id="replica-set"
        ),
        pytest.param(replace(_TROUBLE, owner=None), "u-pod", id="bare-pod"),
        pytest.param(
            replace(_TROUBLE, owner=ObjectId("batch/v1", "Job", "shop", "import", "u-job")), "u-job", id="job"
        ),
        pytest.param(replace(_TROUBLE, owner=replace(_REPLICA_SET, uid="u-forged")), None, id="forged-owner"),
        pytest.param(replace(_TROUBLE, owner=replace(_REPLICA_SET, name="gone")), None, id="owner-gone"),
    ],
)
async def test_an_event_is_about_what_people_describe(
    store: Store, client: Client, trouble: Trouble, uid: str | None
) -> None:
    await EventRecorder(client, clock=Clock()).record([trouble], _leads)
    assert [event["involvedObject"]["uid"] for event in store.events] == ([] if uid is None else [uid])
