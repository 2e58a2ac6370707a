"""The live cluster: three watches that keep small records current, and say how old their view is.

List, then watch from the list's resourceVersion, as client-go's reflector does
(https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes). Objects are decoded one
by one from raw JSON and dropped once their record is made: 5,000 nodes are 40 MB of JSON, and a few MB of records.
"""

from __future__ import annotations

import asyncio
import math
import os
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from sys import intern
from types import MappingProxyType
from typing import Any, Final, Generic, TypeVar

import msgspec
from aiohttp import ClientTimeout
from aiohttp.http_exceptions import LineTooLong

from server import logs
from webhook.cluster.kubernetes import ApiClient, load_incluster_config, load_kube_config
from webhook.cluster.kubernetes import Configuration as ClientConfiguration
from webhook.cluster.lookups import Lookups, StatusError, get, send
from webhook.configuration.model import Configuration
from webhook.modes import Mode
from webhook.snapshot import (
    Fetched,
    Lookup,
    NodeRecord,
    RuntimeClassRecord,
    Snapshot,
    Taint,
    namespace_mode,
    node_record,
    runtime_class_record,
)

T = TypeVar("T")
Clock = Callable[[], float]
Seen = Callable[[str, str], None]
"""Told (resource, what) of each thing that happens: listed, opened, added, modified, deleted, bookmark, malformed,
interrupted. For metrics."""

# Of 5,000 nodes of 8 KB, pages of 500 cost 12 MiB more at the peak than pages of 100, and save no time.
_PAGE_ITEMS: Final = 100
_MAX_PAGE_BYTES: Final = 128 << 20
# After so many items of a page others get their turn: a page must not hold up admissions.
_ITEMS_AT_ONCE: Final = 25
_SETTLED_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Timing:
    """Bounds, in seconds.

    `watch` is how long the server is asked to keep a watch open, at random between the two. An API server sends a
    bookmark about once a minute, so `idle` seconds without a byte mean a dead connection; at worst a quiet watch is
    opened again. `backoff` is the ceiling of the first delay and of all.
    """

    open: float = 10.0
    page: float = 30.0
    idle: float = 75.0
    watch: tuple[int, int] = (90, 120)
    backoff: tuple[float, float] = (0.8, 30.0)


async def connect() -> ApiClient:
    """A client by KUBECONFIG where it is set, else by the pod's service account.

    Raises kubernetes_asyncio.config.ConfigException.
    """
    configuration = ClientConfiguration()
    if path := os.environ.get("KUBECONFIG"):
        await load_kube_config(config_file=path, client_configuration=configuration, persist_config=False)
    else:
        load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    return ApiClient(configuration)


class LiveCluster:
    """A `webhook.cluster.protocol.Cluster`, kept current by `run`.

    `clock` counts seconds and never goes back.
    """

    def __init__(
        self,
        configuration: Configuration,
        *,
        connect: Callable[[], Awaitable[ApiClient]] = connect,
        timing: Timing = Timing(),
        clock: Clock = time.monotonic,
        seen: Seen = lambda _resource, _what: None,
    ) -> None:
        self._connect = connect
        self._lookups: Lookups | None = None
        self._label_keys = configuration.node_label_keys
        self._namespaces = Watch("namespaces", "/api/v1/namespaces", namespace_mode, timing, clock, seen)
        self._nodes = Watch("nodes", "/api/v1/nodes", self._node, timing, clock, seen)
        self._classes = Watch(
            "runtimeclasses", "/apis/node.k8s.io/v1/runtimeclasses", _runtime_class, timing, clock, seen
        )

    async def run(self) -> None:
        """Watch until cancelled. Raises what `connect` raises, and nothing else: failures are logged and retried."""
        async with await self._connect() as api, asyncio.TaskGroup() as tasks:
            self._lookups = Lookups(api)
            try:
                for watch in (self._namespaces, self._nodes, self._classes):
                    tasks.create_task(watch.run(api))
                await asyncio.get_running_loop().create_future()
            finally:
                self._lookups = None

    def current(self) -> Snapshot:
        """The view now. A namespace that is not in it may have been made a moment ago: it counts as enforcing."""
        return Snapshot(
            self._namespaces.records,
            self._nodes.records,
            self._classes.records,
            age_seconds=self.age_seconds,
            unlisted=Mode.ENFORCE,
        )

    @property
    def age_seconds(self) -> float:
        """Seconds since the oldest of the watches was last known alive; infinite until all were."""
        return max(self._namespaces.age_seconds, self._nodes.age_seconds, self._classes.age_seconds)

    @property
    def synced(self) -> bool:
        """Whether all three were listed once."""
        return self.problem() is None

    def problem(self) -> str | None:
        """Why the view cannot be used yet; None once synced. A gate of readiness."""
        watches = (self._namespaces, self._nodes, self._classes)
        waiting = [watch.resource for watch in watches if not watch.listed]
        return f"not listed yet: {', '.join(waiting)}" if waiting else None

    def configured(self, configuration: Configuration) -> None:
        """Keep the node labels that this configuration needs, and list the nodes again where they are others.

        Until they are listed, nodes have the old labels: a profile that needs a new one is refused, not let through.
        """
        keys = configuration.node_label_keys
        if keys != self._label_keys:
            self._label_keys = keys
            self._nodes.relist()

    async def look_up(self, lookup: Lookup) -> Fetched:
        """As `webhook.cluster.protocol.Cluster.look_up`."""
        return Fetched() if self._lookups is None else await self._lookups.look_up(lookup)

    def _node(self, item: Mapping[str, Any]) -> NodeRecord:
        record = node_record(item, self._label_keys)
        return replace(
            record,
            labels=_interned(record.labels),
            taints=tuple(Taint(intern(t.key), intern(t.value), intern(t.effect)) for t in record.taints),
        )


def _runtime_class(item: Mapping[str, Any]) -> RuntimeClassRecord:
    record = runtime_class_record(item)
    return replace(record, handler=intern(record.handler), node_selector=_interned(record.node_selector))


def _interned(pairs: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    return tuple((intern(key), intern(value)) for key, value in pairs)


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
    """The stream cannot be followed from where we are: `410 Gone`, or something in it was lost."""


class Watch(Generic[T]):
    """One resource: a record of each object, by name.

    `read` makes the record of an object and may raise anything for one it cannot read. Such an object is left out, and
    so is its former record: what cannot be read is not known.
    """

    def __init__(
        self, resource: str, path: str, read: Callable[[Mapping[str, Any]], T], timing: Timing, clock: Clock, seen: Seen
    ) -> None:
        self.resource = resource
        self.listed = False
        self._path = path
        self._read = read
        self._timing = timing
        self._clock = clock
        self._seen = seen
        self._records: dict[str, T] = {}
        self._view: Mapping[str, T] | None = None
        self._alive = -math.inf
        self._version = ""  # where to go on from; empty: list first
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

    def relist(self) -> None:
        """Drop what is under way and list again at once."""
        self._version = ""
        if self._task is not None:
            self._task.cancel()

    async def run(self, api: ApiClient) -> None:
        """List and watch until cancelled."""
        try:
            while True:
                self._task = asyncio.create_task(self._keep(api))
                await asyncio.wait([self._task])
                if not self._task.cancelled():  # `relist` cancels; nothing else ends it but a mistake of ours
                    self._task.result()
        finally:
            if self._task is not None:
                self._task.cancel()
                await asyncio.wait([self._task])

    async def _keep(self, api: ApiClient) -> None:
        failures = 0
        while True:
            opened, retry_after = math.inf, 0.0
            reason, status = "ended early", None
            try:
                if not self._version:
                    await self._list(api)
                seconds = random.randint(*self._timing.watch)  # noqa: S311 - spreads load, hides nothing
                async with asyncio.timeout(self._timing.open):
                    response = await self._open(api, seconds)
                opened = self._clock()
                try:
                    while (line := await response.content.readline()).endswith(b"\n"):
                        self._apply(line)
                finally:
                    response.close()
            except _RelistError as error:
                self._version, reason = "", str(error)
            except StatusError as error:
                reason, status, retry_after = "status", error.status, error.retry_after_seconds
                if error.status == 410:
                    self._version = ""
            except LineTooLong:  # larger than any object: a list goes on behind it
                self._version, reason = "", "an oversized event"
            except Exception as error:  # nothing that a server sends may end the watch
                reason = type(error).__name__
            if opened == math.inf and (status is None or status >= 500):
                # Who was away may come back with an older store, from a backup. It would take our version for one that
                # is still to come, and say nothing until then.
                self._version = ""
            settled = self._clock() - opened >= _SETTLED_SECONDS
            if settled and reason == "ended early":
                failures = 0
                continue  # the server ended it, as it was asked to
            failures = 1 if settled else failures + 1
            await self._back_off(failures, reason, status, retry_after)

    async def _back_off(self, failures: int, reason: str, status: int | None, retry_after: float) -> None:
        first, most = self._timing.backoff
        ceiling = min(most, first * 2 ** min(failures - 1, 16))
        delay = max(random.uniform(0, ceiling), min(retry_after, most))  # noqa: S311 - as above
        logs.warning(
            "watch_interrupted",
            resource=self.resource,
            reason=reason,
            status=status,
            failures=failures,
            retry_seconds=round(delay, 3),
        )
        self._seen(self.resource, "interrupted")
        await asyncio.sleep(delay)

    async def _list(self, api: ApiClient) -> None:
        """All objects in pages, swapped in together. Without a resourceVersion, so that they are no older than now."""
        started = self._clock()
        records: dict[str, T] = {}
        metadata = _ListMetadata()
        while True:
            query = [("limit", str(_PAGE_ITEMS)), ("continue", metadata.continue_)]
            body = await get(
                api,
                self._path,
                query if metadata.continue_ else query[:1],
                seconds=self._timing.page,
                max_bytes=_MAX_PAGE_BYTES,
            )
            page = _read_page(body)
            for number, raw in enumerate(page.items or (), 1):
                self._add(records, raw)
                if number % _ITEMS_AT_ONCE == 0:
                    await asyncio.sleep(0)
            metadata = page.metadata
            if not metadata.continue_:
                break
        if not metadata.resource_version:
            raise _RelistError("a list without resourceVersion")
        if records != self._records:
            self._records, self._view = records, None
        self._version, self._alive, self.listed = metadata.resource_version, started, True
        logs.info("watch_listed", resource=self.resource, objects=len(records))
        self._seen(self.resource, "listed")

    def _add(self, records: dict[str, T], raw: msgspec.Raw) -> None:
        try:
            item = msgspec.json.decode(raw, type=dict[str, Any])
            records[intern(_name(item))] = self._read(item)
        except Exception:  # one unreadable object must not take the others with it
            self._seen(self.resource, "malformed")

    async def _open(self, api: ApiClient, seconds: int) -> Any:
        query = (
            ("watch", "true"),
            ("allowWatchBookmarks", "true"),
            ("resourceVersion", self._version),
            ("timeoutSeconds", str(seconds)),
        )
        timing = self._timing
        # The server ends the watch by itself; who does not is cut off a little later.
        timeout = ClientTimeout(total=seconds + timing.open, sock_connect=timing.open, sock_read=timing.idle)
        response = await send(api, self._path, query, timeout)
        if response.status != 200:
            response.close()
            raise StatusError.of(response)
        self._alive = self._clock()
        self._seen(self.resource, "opened")
        return response

    def _apply(self, line: bytes) -> None:
        try:
            event = _read_event(line)
        except ValueError:
            raise _RelistError("an unreadable event") from None
        if event.type == "ERROR":
            # 410 mostly. Whatever it is, going on from the same version would meet it again.
            raise _RelistError("gone" if event.object.get("code") == 410 else "an error event")
        what = self._change(event)
        metadata = event.object.get("metadata")
        version = metadata.get("resourceVersion") if isinstance(metadata, dict) else None
        if isinstance(version, str) and version:
            self._version = version
        self._alive = self._clock()
        self._seen(self.resource, what)

    def _change(self, event: _Event) -> str:
        if event.type == "BOOKMARK":
            return "bookmark"
        try:
            name = _name(event.object)
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
        # Most events of nodes are heartbeats, which change nothing that is kept.
        if self._records.get(name) != record:
            self._records[intern(name)] = record
            self._view = None
        return event.type.lower()

    def _drop(self, name: str) -> None:
        if self._records.pop(name, None) is not None:
            self._view = None


def _name(item: Mapping[str, Any]) -> str:
    metadata = item.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    if not isinstance(name, str) or not name:
        raise ValueError("no name")
    return name
