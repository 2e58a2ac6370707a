"""Writes Events: one for each object and code, counted up when it happens again, and bounded in rate."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from server import logs
from server.kubernetes.client import MERGE_PATCH, Client
from server.kubernetes.errors import CONFLICT, KubernetesError, StatusError, reason_of, status_of
from server.kubernetes.untyped import TIME_FORM, text
from webhook.scanner.events.involved import involved_object
from webhook.scanner.events.trouble import Trouble
from webhook.scanner.finding import ObjectId
from webhook.wellknown import PREFIX

COMPONENT: Final = "morphisms-scanner"
# A pod that fails again and again is told again after its back-off, which begins with 10 s.
AGAIN_SECONDS: Final = 10.0
# An API server keeps Events for an hour, and what lasts is told before that.
REMIND_SECONDS: Final = 1800.0
# Of all objects together, as client-go's recorders bound themselves per object.
_BURST, _PER_SECOND = 50.0, 5.0
_MOST_REMEMBERED: Final = 20_000
_FORBIDDEN, _NOT_FOUND = 403, 404


@dataclass(slots=True)
class _Told:
    """What was written last about one group."""

    at: str
    correlation_id: str
    written: float
    count: int


class EventRecorder:
    """Remembers what it has written. `wrote` is called with (reason, outcome) for each try; for metrics."""

    def __init__(
        self,
        client: Client,
        *,
        wrote: Callable[[str, str], None] = lambda _reason, _outcome: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._wrote = wrote
        self._clock = clock
        self._told: OrderedDict[tuple[str, ...], _Told] = OrderedDict()
        self._tokens = _BURST
        self._refilled = clock()

    async def record(self, troubles: Iterable[Trouble], may_write: Callable[[], bool]) -> None:
        """Write what is due of all the troubles that there are now; the rest is due at a later call."""
        newest: dict[tuple[str, ...], Trouble] = {}
        for trouble in troubles:
            key = _group(trouble)
            if key not in newest or newest[key].at <= trouble.at:
                newest[key] = trouble
        for key, trouble in newest.items():
            if not self._is_due(key, trouble):
                continue
            if not may_write() or not self._take_token():
                return
            await self._write(key, trouble)

    def _is_due(self, key: tuple[str, ...], trouble: Trouble) -> bool:
        told = self._told.get(key)
        if told is None:
            return True
        since = self._clock() - told.written
        # Times have seconds, and morphisms-init may fail twice in one.
        if trouble.at > told.at or (trouble.at == told.at and trouble.correlation_id != told.correlation_id):
            return since >= AGAIN_SECONDS
        return trouble.is_state and since >= REMIND_SECONDS

    def _take_token(self) -> bool:
        now = self._clock()
        self._tokens = min(_BURST, self._tokens + (now - self._refilled) * _PER_SECOND)
        self._refilled = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    async def _write(self, key: tuple[str, ...], trouble: Trouble) -> None:
        before = self._told.get(key)
        count = 0 if before is None else before.count
        outcome = "written"
        try:
            about = await involved_object(self._client, trouble)
            if about is None:
                outcome = "gone"
            else:
                count = await self._put(about, trouble, before)
        except KubernetesError as error:
            outcome = "failed"
            status = status_of(error)
            # A namespace that ends takes no new objects, which nothing will change.
            if status not in (_FORBIDDEN, _NOT_FOUND):
                logs.warning("event_failed", reason=reason_of(error), status=status)
        self._wrote(trouble.reason, outcome)
        self._told[key] = _Told(trouble.at, trouble.correlation_id, self._clock(), count)
        if outcome == "failed":
            self._told[key].at = "" if before is None else before.at  # due again after AGAIN_SECONDS
        self._told.move_to_end(key)
        while len(self._told) > _MOST_REMEMBERED:
            self._told.popitem(last=False)

    async def _put(self, about: ObjectId, trouble: Trouble, before: _Told | None) -> int:
        """Create the Event, or count it up; how often it was counted."""
        path = f"/api/v1/namespaces/{trouble.source.namespace}/events"
        name = _name(about, trouble)
        now = self._client.clock.now()
        if before is None or not before.count:
            try:
                await self._client.post(path, _event(name, about, trouble, now))
            except StatusError as error:
                if error.status != CONFLICT:
                    raise
            else:
                return 1
            # A scanner before this one wrote it.
            found = await self._client.find(f"{path}/{name}")
            count = _count(found)
            if found is not None and text(found.get("lastTimestamp")) >= trouble.at:
                return count
        else:
            count = before.count
        body = {**_changing(trouble, now), "count": count + 1}
        try:
            await self._client.patch(f"{path}/{name}", MERGE_PATCH, body)
        except StatusError as error:
            if error.status != _NOT_FOUND:
                raise
            await self._client.post(path, _event(name, about, trouble, now))  # it has expired
            return 1
        return count + 1


def _group(trouble: Trouble) -> tuple[str, ...]:
    """What makes one Event: a Service's or owner's pods share it."""
    source, owner = trouble.source, trouble.owner
    named = f"Service/{trouble.service}" if trouble.service else str(owner or source)
    return source.namespace, named, trouble.reason, trouble.code


def _name(about: ObjectId, trouble: Trouble) -> str:
    """The same for the same object, reason and code, so that a later scanner finds it."""
    text = "\0".join((about.uid, about.kind, about.name, trouble.reason, trouble.code))
    return f"{about.name[:200].rstrip('.-')}.{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _event(name: str, about: ObjectId, trouble: Trouble, now: datetime) -> dict[str, Any]:
    namespace = trouble.source.namespace
    changing = _changing(trouble, now)
    return {
        "apiVersion": "v1",
        "kind": "Event",
        **changing,
        "metadata": {"name": name, "namespace": namespace, **changing["metadata"]},
        "involvedObject": {
            "apiVersion": about.api_version,
            "kind": about.kind,
            "namespace": namespace,
            "name": about.name,
            "uid": about.uid,
        },
        "type": "Warning",
        "reason": trouble.reason,
        "source": {"component": COMPONENT},
        "reportingComponent": COMPONENT,
        "reportingInstance": COMPONENT,
        "firstTimestamp": changing["lastTimestamp"],
        "count": 1,
    }


def _changing(trouble: Trouble, now: datetime) -> dict[str, Any]:
    """The members that differ each time."""
    annotations = {f"{PREFIX}reason-code": trouble.code[:256], f"{PREFIX}correlation-id": trouble.correlation_id}
    return {
        "metadata": {"annotations": annotations},
        "message": f"{trouble.source}: {trouble.message}"[:1024],
        "lastTimestamp": now.strftime(TIME_FORM),
    }


def _count(item: Mapping[str, Any] | None) -> int:
    count = None if item is None else item.get("count")
    return count if type(count) is int else 1
