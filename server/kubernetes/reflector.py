"""One collection, kept current: a record of each object, and how old that view is.

List, then watch from the list's resourceVersion, as client-go's reflector does
(https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes). Objects are decoded one
by one from raw JSON and dropped once their record is made: 5,000 nodes are 40 MB of JSON, and a few MB of records.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from sys import intern
from types import MappingProxyType
from typing import Any, Final, Generic, TypeVar

import msgspec

from server import logs
from server.kubernetes.client import Client
from server.kubernetes.errors import GONE, AnswerError, StatusError, reason_of, status_of

T = TypeVar("T")
Monotonic = Callable[[], float]
"""Counts seconds and never goes back."""

Observer = Callable[[str, str], None]
"""Called with (resource, what) for each thing that happens: listed, opened, added, modified, deleted, bookmark,
malformed, interrupted. For metrics."""

# Of 5,000 nodes of 8 KB, pages of 500 cost 12 MiB more at the peak than pages of 100, and save no time.
_PAGE_ITEMS: Final = 100
_MAX_PAGE_BYTES: Final = 128 << 20
# After so many items of a page other tasks run: a page must not hold up requests.
_ITEMS_AT_ONCE: Final = 25
_SETTLED_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class ReflectorTiming:
    """Bounds, in seconds.

    `watch` is how long the server is told to keep a watch open, at random between the two. An API server sends a
    bookmark about once a minute, so `idle` seconds without a byte mean a dead connection; at worst a quiet watch is
    opened again. `backoff` is the ceiling of the first delay and of all.
    """

    open: float = 10.0
    page: float = 30.0
    idle: float = 75.0
    watch: tuple[int, int] = (90, 120)
    backoff: tuple[float, float] = (0.8, 30.0)


TIMING: Final = ReflectorTiming()


@dataclass(frozen=True, slots=True)
class Collection:
    """What is followed: `path` in the API, `resource` in logs and metrics, one object's name or None for all.

    `fields` is a field selector, such as `reason=FailedCreate`.
    """

    resource: str
    path: str
    name: str | None = None
    fields: str = ""

    @property
    def query(self) -> list[tuple[str, str]]:
        """The selector of that one object, or of those with these fields."""
        fields = self.fields if self.name is None else f"metadata.name={self.name}"
        return [("fieldSelector", fields)] if fields else []


class _ListMetadata(msgspec.Struct, rename={"resource_version": "resourceVersion", "continue_": "continue"}):
    resource_version: str = ""
    continue_: str = ""


class _Page(msgspec.Struct):
    """One page of a list. Its items stay bytes, so that one bad item spoils itself only, and few exist at a time."""

    metadata: _ListMetadata
    items: list[msgspec.Raw] | None = None


class _Event(msgspec.Struct):
    type: str
    object: dict[str, Any]


_read_page: Final = msgspec.json.Decoder(_Page).decode
_read_event: Final = msgspec.json.Decoder(_Event).decode


class _RelistError(Exception):
    """The watch cannot continue from the present version: `410 Gone`, or part of the stream was lost."""


class Reflector(Generic[T]):
    """The records of a collection, by name; of one over all namespaces, by `key_of_namespaced`.

    `read` makes the record of an object and may raise anything for one that it cannot read. Such an object is left
    out, and so is its former record: what cannot be read is not known. It is left out too where `read` gives None,
    because nothing about it is wanted. `changed` is called after each change of the records, and after the first list.
    """

    def __init__(
        self,
        collection: Collection,
        read: Callable[[Mapping[str, Any]], T | None],
        *,
        key: Callable[[Mapping[str, Any]], str] | None = None,
        timing: ReflectorTiming = TIMING,
        clock: Monotonic = time.monotonic,
        observe: Observer = lambda _resource, _what: None,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self.resource = collection.resource
        self.is_listed = False
        self._collection = collection
        self._read = read
        self._key = _name if key is None else key
        self._timing = timing
        self._clock = clock
        self._observe = observe
        self._changed = changed
        self._records: dict[str, T] = {}
        self._view: Mapping[str, T] | None = None
        self._alive = -math.inf
        self._version = ""  # where the next watch begins; empty: list first
        self._task: asyncio.Task[None] | None = None

    @property
    def records(self) -> Mapping[str, T]:
        """The records now; what was handed out never changes."""
        if self._view is None:
            self._view = MappingProxyType(self._records.copy())
        return self._view

    @property
    def age_seconds(self) -> float:
        """Seconds since an event, a bookmark, an opened watch, or the start of the last complete list."""
        return self._clock() - self._alive

    def accept(self, name: str, record: T) -> None:
        """Take a newer record, such as the answer to a write, before the watch brings it."""
        if name not in self._records or self._records[name] != record:
            self._records[intern(name)] = record
            self._note_change()

    def relist(self) -> None:
        """Drop the list or watch under way and list again at once."""
        self._version = ""
        if self._task is not None:
            self._task.cancel()

    async def run(self, client: Client) -> None:
        """List and watch until cancelled."""
        try:
            while True:
                self._task = asyncio.create_task(self._follow(client))
                await asyncio.wait([self._task])
                if not self._task.cancelled():  # `relist` cancels it; anything else is a mistake of ours
                    self._task.result()
        finally:
            if self._task is not None:
                self._task.cancel()
                await asyncio.wait([self._task])

    async def _follow(self, client: Client) -> None:
        failures = 0
        while True:
            opened_at = math.inf
            error: Exception | None = None
            try:
                if not self._version:
                    await self._list(client)
                seconds = random.randint(*self._timing.watch)  # noqa: S311 - spreads load, hides nothing
                async with client.stream(
                    self._collection.path,
                    self._watch_query(seconds),
                    open_seconds=self._timing.open,
                    idle_seconds=self._timing.idle,
                    # The server closes the watch itself; if it does not, we cut it shortly after.
                    total_seconds=seconds + self._timing.open,
                ) as lines:
                    opened_at = self._alive = self._clock()
                    self._observe(self.resource, "opened")
                    async for line in lines:
                        self._apply(line)
            except Exception as caught:  # nothing that a server sends may end the reflector
                error = caught
            if error is not None and self._must_list(error, was_open=opened_at < math.inf):
                self._version = ""
            is_settled = self._clock() - opened_at >= _SETTLED_SECONDS
            if is_settled and error is None:
                failures = 0
                continue  # the server closed the watch after the time that we gave it
            failures = 1 if is_settled else failures + 1
            await self._back_off(failures, error)

    def _must_list(self, error: Exception, *, was_open: bool) -> bool:
        """Whether the version that we have is of no more use."""
        if isinstance(error, _RelistError | AnswerError):
            return True
        status = status_of(error)
        if status == GONE:
            return True
        # A server that was away may come back with an older store, from a backup. It would take our version for one
        # that is still to come, and send nothing until then.
        return not was_open and (status is None or status >= 500)

    async def _back_off(self, failures: int, error: Exception | None) -> None:
        first, most = self._timing.backoff
        ceiling = min(most, first * 2 ** min(failures - 1, 16))
        retry_after = error.retry_after_seconds if isinstance(error, StatusError) else 0.0
        delay = max(random.uniform(0, ceiling), min(retry_after, most))  # noqa: S311 - as above
        logs.warning(
            "watch_interrupted",
            resource=self.resource,
            reason=_reason(error),
            status=None if error is None else status_of(error),
            failures=failures,
            retry_seconds=round(delay, 3),
        )
        self._observe(self.resource, "interrupted")
        await asyncio.sleep(delay)

    async def _list(self, client: Client) -> None:
        """All objects in pages, swapped in together. Without a resourceVersion, so that they are no older than now."""
        started = self._clock()
        records: dict[str, T] = {}
        metadata = _ListMetadata()
        while True:
            query = [*self._collection.query, ("limit", str(_PAGE_ITEMS))]
            if metadata.continue_:
                query.append(("continue", metadata.continue_))
            page = _read_page(
                await client.read(self._collection.path, query, seconds=self._timing.page, max_bytes=_MAX_PAGE_BYTES)
            )
            for number, raw in enumerate(page.items or (), 1):
                self._add(records, raw)
                if number % _ITEMS_AT_ONCE == 0:
                    await asyncio.sleep(0)
            metadata = page.metadata
            if not metadata.continue_:
                break
        if not metadata.resource_version:
            raise _RelistError("a list without resourceVersion")
        has_changed = records != self._records or not self.is_listed
        self._version, self._alive, self.is_listed = metadata.resource_version, started, True
        logs.info("watch_listed", resource=self.resource, objects=len(records))
        self._observe(self.resource, "listed")
        if has_changed:
            self._records = records
            self._note_change()

    def _add(self, records: dict[str, T], raw: msgspec.Raw) -> None:
        try:
            item = msgspec.json.decode(raw, type=dict[str, Any])
            key, record = self._key(item), self._read(item)
            if record is not None:
                records[intern(key)] = record
        except Exception:  # one unreadable object must not take the others with it
            self._observe(self.resource, "malformed")

    def _watch_query(self, seconds: int) -> list[tuple[str, str]]:
        return [
            *self._collection.query,
            ("watch", "true"),
            ("allowWatchBookmarks", "true"),
            ("resourceVersion", self._version),
            ("timeoutSeconds", str(seconds)),
        ]

    def _apply(self, line: bytes) -> None:
        try:
            event = _read_event(line)
        except ValueError:
            raise _RelistError("an unreadable event") from None
        if event.type == "ERROR":
            # 410 mostly. Whatever it is, a watch from the same version would meet it again.
            raise _RelistError("gone" if event.object.get("code") == GONE else "an error event")
        what = self._change(event)
        metadata = event.object.get("metadata")
        version = metadata.get("resourceVersion") if isinstance(metadata, dict) else None
        if isinstance(version, str) and version:
            self._version = version
        self._alive = self._clock()
        self._observe(self.resource, what)

    def _change(self, event: _Event) -> str:
        if event.type == "BOOKMARK":
            return "bookmark"
        try:
            name = self._key(event.object)
        except ValueError:
            return "malformed"
        if event.type == "DELETED":
            self._drop(name)
            return "deleted"
        if event.type not in ("ADDED", "MODIFIED"):
            return "malformed"
        try:
            record = self._read(event.object)
        except Exception:  # see the class
            self._drop(name)
            return "malformed"
        if record is None:
            self._drop(name)
            return event.type.lower()
        # Most events of nodes are heartbeats, which change nothing that is kept.
        self.accept(name, record)
        return event.type.lower()

    def _drop(self, name: str) -> None:
        if self._records.pop(name, None) is not None:
            self._note_change()

    def _note_change(self) -> None:
        self._view = None
        self._changed()


def _reason(error: Exception | None) -> str:
    if error is None:
        return "ended early"
    if isinstance(error, _RelistError):
        return str(error)
    return reason_of(error)


def key_of_namespaced(item: Mapping[str, Any]) -> str:
    """NAMESPACE/NAME, for a collection over all namespaces."""
    name = _name(item)
    return f"{item['metadata'].get('namespace', '')}/{name}"


def _name(item: Mapping[str, Any]) -> str:
    metadata = item.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    if not isinstance(name, str) or not name:
        raise ValueError("no name")
    return name
