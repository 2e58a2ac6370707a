"""The live cluster: namespaces, nodes and RuntimeClasses as small records, and how old that view is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from sys import intern
from typing import Any, TypeVar

from server.kubernetes.client import Client
from server.kubernetes.connect import connect
from server.kubernetes.contact import Contact
from server.kubernetes.reflector import TIMING, Collection, Monotonic, Observer, Reflector, ReflectorTiming
from webhook.cluster.lookups import Lookups
from webhook.configuration.model import Configuration
from webhook.modes import Mode
from webhook.node_records import NodeRecord, Taint
from webhook.snapshot import (
    Fetched,
    Lookup,
    RuntimeClassRecord,
    Snapshot,
    namespace_mode,
    node_record,
    runtime_class_record,
)

T = TypeVar("T")


class LiveCluster:
    """A `webhook.cluster.protocol.Cluster`, kept current by `run`."""

    def __init__(
        self,
        configuration: Configuration,
        *,
        connect: Callable[[], Awaitable[Client]] = connect,
        timing: ReflectorTiming = TIMING,
        clock: Monotonic = time.monotonic,
        observe: Observer = lambda _resource, _what: None,
        contact: Contact | None = None,
    ) -> None:
        self._connect = connect
        self._contact = contact or Contact()
        self._lookups: Lookups | None = None
        self._label_keys = configuration.node_label_keys

        def reflector(collection: Collection, read: Callable[[Mapping[str, Any]], T]) -> Reflector[T]:
            return Reflector(collection, read, timing=timing, clock=clock, observe=observe)

        self._namespaces = reflector(Collection("namespaces", "/api/v1/namespaces"), namespace_mode)
        self._nodes = reflector(Collection("nodes", "/api/v1/nodes"), self._node)
        self._classes = reflector(Collection("runtimeclasses", "/apis/node.k8s.io/v1/runtimeclasses"), _runtime_class)

    async def run(self) -> None:
        """Watch until cancelled. Raises what `connect` raises, and nothing else: failures are logged and retried."""
        async with await self._connect() as client, asyncio.TaskGroup() as tasks:
            self._lookups = Lookups(client)
            try:
                for reflector in (self._namespaces, self._nodes, self._classes):
                    tasks.create_task(reflector.run(client))
                tasks.create_task(self._contact.run(client))
                await asyncio.get_running_loop().create_future()
            finally:
                self._lookups = None

    def current(self) -> Snapshot:
        """The view now. A namespace that is not in it may have been created a moment ago: its mode is enforce."""
        return Snapshot(
            self._namespaces.records,
            self._nodes.records,
            self._classes.records,
            age_seconds=self.age_seconds,
            unlisted=Mode.ENFORCE,
            now=datetime.now(UTC),
        )

    @property
    def age_seconds(self) -> float:
        """Seconds since the oldest of the three watches was last known alive; infinite until all were."""
        return max(self._namespaces.age_seconds, self._nodes.age_seconds, self._classes.age_seconds)

    @property
    def synced(self) -> bool:
        """Whether all three have been listed once."""
        return not self._waiting()

    def problem(self) -> str | None:
        """Why this replica should get no requests: its view is not there yet, or it is cut off from the API server."""
        waiting = self._waiting()
        return f"not listed yet: {', '.join(waiting)}" if waiting else self._contact.problem()

    def _waiting(self) -> list[str]:
        reflectors = (self._namespaces, self._nodes, self._classes)
        return [reflector.resource for reflector in reflectors if not reflector.is_listed]

    def configured(self, configuration: Configuration) -> None:
        """Take a reloaded configuration; when it names other labels of nodes, list the nodes again.

        Until they are listed, nodes have the old labels: a profile that needs a new one is refused, not let through.
        """
        if configuration.node_label_keys != self._label_keys:
            self._label_keys = configuration.node_label_keys
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
