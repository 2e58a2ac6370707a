"""Follows what shows trouble, and has it recorded while this replica leads."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from server.kubernetes.reflector import TIMING, Collection, Reflector, ReflectorTiming, key_of_namespaced
from webhook.scanner.events.recorder import EventRecorder
from webhook.scanner.events.trouble import Trouble, trouble_of_event, trouble_of_pod, trouble_of_replica_set
from webhook.scanner.metrics import ScannerMetrics

if TYPE_CHECKING:
    from collections.abc import Callable

    from server.kubernetes.client import Client

# Between two looks while there is trouble; changes that come together are one look.
_LOOK_SECONDS: Final = 2.0
_GATHER_SECONDS: Final = 0.1


class EventWatcher:
    """`run` until cancelled; it keeps a record of those objects only that show trouble."""

    def __init__(
        self, metrics: ScannerMetrics, is_leader: Callable[[], bool], timing: ReflectorTiming = TIMING
    ) -> None:
        self._metrics = metrics
        self._is_leader = is_leader
        self._changed = asyncio.Event()

        def reflector(
            resource: str, path: str, read: Callable[[Mapping[str, Any]], Trouble | None], fields: str = ""
        ) -> Reflector[Trouble]:
            return Reflector(
                Collection(resource, path, fields=fields),
                read,
                key=key_of_namespaced,
                timing=timing,
                observe=metrics.observe,
                changed=self._changed.set,
            )

        self._reflectors = (
            reflector("pods", "/api/v1/pods", trouble_of_pod),
            reflector("replicasets", "/apis/apps/v1/replicasets", trouble_of_replica_set),
            reflector("events", "/api/v1/events", trouble_of_event, "reason=FailedCreate"),
        )

    def problem(self) -> str | None:
        """What was not listed yet; None once everything was. A gate of readiness."""
        waiting = [each.resource for each in self._reflectors if not each.is_listed]
        return f"not listed yet: {', '.join(waiting)}" if waiting else None

    def wake(self) -> None:
        """Look again, such as when this replica begins to lead."""
        self._changed.set()

    async def run(self, client: Client) -> None:
        """Watch and record."""
        recorder = EventRecorder(client, wrote=self._metrics.wrote)
        async with asyncio.TaskGroup() as tasks:
            for reflector in self._reflectors:
                tasks.create_task(reflector.run(client))
            while True:
                troubles = list(self._troubles())
                self._metrics.troubled(troubles)
                if self._is_leader():
                    await recorder.record(troubles, self._is_leader)
                with suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_SECONDS if troubles else None):
                        await self._changed.wait()
                self._changed.clear()
                await asyncio.sleep(_GATHER_SECONDS)

    def _troubles(self) -> Iterator[Trouble]:
        for reflector in self._reflectors:
            yield from reflector.records.values()
