"""Leader election: one holder of a Lease at a time (coordination.k8s.io/v1).

As client-go does it: a lease has expired when it was not renewed for its duration by *our* monotonic clock since we
saw it change, so no wall clock counts. A holder stops leading well before others may take over.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from server import logs
from server.kubernetes.client import Client, Object
from server.kubernetes.errors import StatusError, reason_of
from server.kubernetes.objects import ObjectRef
from server.kubernetes.untyped import mapping

_COLLECTION: Final = "/apis/coordination.k8s.io/v1/namespaces/{}/leases"
RELEASE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class LeaseTiming:
    """Seconds. `lead` after its last renewal a holder stops leading; `duration` after it others take over."""

    duration: int = 15
    lead: float = 10.0
    retry: float = 2.0


TIMING: Final = LeaseTiming()


def lease_ref(namespace: str, name: str) -> ObjectRef:
    """Where the Lease is."""
    return ObjectRef(_COLLECTION.format(namespace), name)


class LeaderElection:
    """This process's part, as `identity`. `changed` is called when `is_leader` may have changed."""

    def __init__(
        self, ref: ObjectRef, identity: str, changed: Callable[[], None], timing: LeaseTiming = TIMING
    ) -> None:
        self._ref = ref
        self._identity = identity
        self._changed = changed
        self._timing = timing
        self._leads_until = 0.0
        self._was_leader = False
        self._failure: object = None
        self._seen: tuple[object, ...] | None = None
        self._seen_at = 0.0

    @property
    def is_leader(self) -> bool:
        """Whether this process leads, now."""
        return time.monotonic() < self._leads_until

    async def run(self, client: Client) -> None:
        """Acquire and renew the lease until cancelled; then release it, so that another replica need not wait."""
        try:
            while True:
                await self._try_once(client)
                self._report()
                await asyncio.sleep(self._timing.retry * random.uniform(0.8, 1.2))  # noqa: S311 - spreads load
                self._report()
        finally:
            if self.is_leader:
                self._leads_until = 0.0
                self._report()
                with suppress(Exception):
                    async with asyncio.timeout(RELEASE_SECONDS):
                        await self._release(client)

    async def _try_once(self, client: Client) -> None:
        failure: object = None
        try:
            await self._acquire(client)
        except StatusError as error:
            failure = None if error.status == 409 else error.status
        except Exception as error:  # the next try may succeed
            failure = reason_of(error)
        if failure is not None and failure != self._failure:  # one line per fault, not per try
            logs.warning("lease_failed", reason=failure)
        self._failure = failure

    async def _acquire(self, client: Client) -> None:
        requested_at = time.monotonic()
        lease = await client.find(self._ref.path)
        spec = _spec(lease)
        is_ours = spec.get("holderIdentity") == self._identity
        if lease is not None and not is_ours and not self._has_expired(spec, requested_at):
            return
        await client.put(self._ref.path, self._renewed(lease, spec, client))
        # Counted from before the request: the others see the renewal later than that.
        self._leads_until = requested_at + self._timing.lead

    def _has_expired(self, spec: Mapping[str, Any], now: float) -> bool:
        seen = (spec.get("holderIdentity"), spec.get("renewTime"), spec.get("leaseTransitions"))
        if seen != self._seen:
            self._seen, self._seen_at = seen, now
        if not spec.get("holderIdentity"):
            return True
        seconds = spec.get("leaseDurationSeconds")
        # Bounded, or a wrong number would prevent any leader.
        duration = min(max(seconds, 1), 60) if isinstance(seconds, int) else self._timing.duration
        return now - self._seen_at > duration

    def _renewed(self, lease: Object | None, spec: Mapping[str, Any], client: Client) -> Object:
        now = client.clock.now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        is_ours = spec.get("holderIdentity") == self._identity
        transitions = spec.get("leaseTransitions")
        before = transitions if isinstance(transitions, int) else 0
        new = {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": self._timing.duration,
            "acquireTime": spec.get("acquireTime") or now if is_ours else now,
            "renewTime": now,
            "leaseTransitions": before if is_ours else before + 1,
        }
        return self._lease(lease, new)

    def _lease(self, lease: Object | None, spec: Object) -> Object:
        metadata = dict(lease["metadata"]) if lease is not None else {"name": self._ref.name}
        return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}

    async def _release(self, client: Client) -> None:
        lease = await client.find(self._ref.path)
        spec = _spec(lease)
        if lease is not None and spec.get("holderIdentity") == self._identity:
            free = {**spec, "holderIdentity": "", "leaseDurationSeconds": 1}
            await client.put(self._ref.path, self._lease(lease, free))

    def _report(self) -> None:
        if self.is_leader != self._was_leader:
            self._was_leader = self.is_leader
            logs.info("leading" if self._was_leader else "not_leading", lease=self._ref.name)
            self._changed()


def _spec(lease: Object | None) -> Mapping[str, Any]:
    return mapping(mapping(lease).get("spec"))
