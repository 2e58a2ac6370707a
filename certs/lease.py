"""Who leads: one holder of a Lease at a time (coordination.k8s.io/v1).

As client-go does it: a lease has ended when it was not renewed for its duration by *our* monotonic clock since we saw
it change, so that nobody's wall clock counts. A holder stops leading well before others may take over.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from certs.clock import Clock
from certs.log import Log
from certs.objects import AnswerError, Object, Objects, Place

_COLLECTION: Final = "/apis/coordination.k8s.io/v1/namespaces/{}/leases"
_RELEASE_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class LeaseTiming:
    """Seconds. `lead` after its last renewal a holder stops leading; `duration` after it others take over."""

    duration: int = 15
    lead: float = 10.0
    retry: float = 2.0


TIMING: Final = LeaseTiming()


class Lease:
    """This process's try to hold it. `changed` is called when `held` may have changed."""

    def __init__(
        self,
        objects: Objects,
        clock: Clock,
        namespace: str,
        name: str,
        identity: str,
        changed: Callable[[], None],
        log: Log,
        timing: LeaseTiming = TIMING,
    ) -> None:
        self._place = Place(_COLLECTION.format(namespace), name)
        self._objects = objects
        self._clock = clock
        self._identity = identity
        self._changed = changed
        self._log = log
        self._timing = timing
        self._until = 0.0
        self._was_held = False
        self._failure: object = None
        self._seen: tuple[object, ...] | None = None
        self._seen_at = 0.0

    @property
    def held(self) -> bool:
        """Whether this process leads, now."""
        return time.monotonic() < self._until

    async def run(self) -> None:
        """Try for it, and keep it, until cancelled; then give it up, so that another need not wait."""
        try:
            while True:
                await self._try_once()
                self._tell()
                await asyncio.sleep(self._timing.retry * random.uniform(0.8, 1.2))  # noqa: S311 - spreads load
                self._tell()
        finally:
            if self.held:
                self._until = 0.0
                self._tell()
                with suppress(Exception):
                    async with asyncio.timeout(_RELEASE_SECONDS):
                        await self._release()

    async def _try_once(self) -> None:
        failure: object = None
        try:
            await self._try()
        except AnswerError as error:
            failure = None if error.conflict else error.status
        except Exception as error:  # the next try may do
            failure = type(error).__name__
        if failure is not None and failure != self._failure:  # one line for a fault, not one for each try
            self._log.warning("lease_failed", reason=failure)
        self._failure = failure

    async def _try(self) -> None:
        asked = time.monotonic()
        lease = await self._objects.get(self._place)
        spec = _spec(lease)
        if lease is not None and spec.get("holderIdentity") != self._identity and not self._ended(spec, asked):
            return
        body = self._body(lease, spec)
        await self._objects.put(self._place, body)
        # Counted from before the request: the others see the renewal later than that.
        self._until = asked + self._timing.lead

    def _ended(self, spec: Mapping[str, Any], now: float) -> bool:
        seen = (spec.get("holderIdentity"), spec.get("renewTime"), spec.get("leaseTransitions"))
        if seen != self._seen:
            self._seen, self._seen_at = seen, now
        if not spec.get("holderIdentity"):
            return True
        seconds = spec.get("leaseDurationSeconds")
        # Bounded, or a wrong number would end all leading.
        duration = min(max(seconds, 1), 60) if isinstance(seconds, int) else self._timing.duration
        return now - self._seen_at > duration

    def _body(self, lease: Object | None, spec: Mapping[str, Any]) -> Object:
        now = self._clock.now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        ours = spec.get("holderIdentity") == self._identity
        transitions = spec.get("leaseTransitions")
        before = transitions if isinstance(transitions, int) else 0
        new = {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": self._timing.duration,
            "acquireTime": spec.get("acquireTime") or now if ours else now,
            "renewTime": now,
            "leaseTransitions": before if ours else before + 1,
        }
        return self._object(lease, new)

    def _object(self, lease: Object | None, spec: Object) -> Object:
        metadata = dict(lease["metadata"]) if lease is not None else {"name": self._place.name}
        return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}

    async def _release(self) -> None:
        lease = await self._objects.get(self._place)
        spec = _spec(lease)
        if lease is not None and spec.get("holderIdentity") == self._identity:
            free = {**spec, "holderIdentity": "", "leaseDurationSeconds": 1}
            await self._objects.put(self._place, self._object(lease, free))

    def _tell(self) -> None:
        if self.held != self._was_held:
            self._was_held = self.held
            self._log.info("leading" if self._was_held else "not_leading", lease=self._place.name)
            self._changed()


def _spec(lease: Object | None) -> Mapping[str, Any]:
    spec = lease.get("spec") if lease is not None else None
    return spec if isinstance(spec, Mapping) else {}
