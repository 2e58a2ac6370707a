"""One replica's certificates: what it serves, and, while it leads, keeping what all of them serve."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry

from certs.clock import Clock
from certs.identity import Identity
from certs.leader import Leading
from certs.lease import TIMING, Lease, LeaseTiming
from certs.log import Log
from certs.metrics import CertificateMetrics
from certs.objects import Followed, Objects, Place
from certs.periods import Periods
from certs.serving import Install, Serving
from certs.state import AUTHORITY_SECRET, LEAF_SECRET, Live, read_live

if TYPE_CHECKING:  # whoever brings the client decides how much of its package is loaded
    from kubernetes_asyncio.client import ApiClient

LEASE: Final = "morphisms-webhook"
CONFIGURATIONS: Final = ("mutatingwebhookconfigurations", "validatingwebhookconfigurations")
_ADMISSION: Final = "/apis/admissionregistration.k8s.io/v1"
CONFIGURATION: Final = "morphisms"

# What is served is judged anew at least so often: certificates end without an event.
_LOOK_SECONDS: Final = 30.0


class Keeper:
    """Runs beside the server. `install` is told each pair to serve; `periods` is asked before each step."""

    def __init__(
        self,
        identity: Identity,
        connect: Callable[[], Awaitable[ApiClient]],
        install: Install,
        periods: Callable[[], Periods],
        registry: CollectorRegistry,
        log: Log,
        timing: LeaseTiming = TIMING,
    ) -> None:
        self._identity = identity
        self._connect = connect
        self._periods = periods
        self._log = log
        self._timing = timing
        self._clock = Clock()
        self._changed = asyncio.Event()
        self._lease: Lease | None = None
        self._metrics = CertificateMetrics(registry, lambda: self._leads, lambda: self._clock.skew_seconds)
        self._serving = Serving(identity.names, install, self._metrics, log)

    def problem(self) -> str | None:
        """As `Serving.problem`: a gate of readiness."""
        return self._serving.problem()

    async def run(self) -> None:
        """Keep at it until cancelled. Raises what `connect` raises, and nothing else."""
        identity, changed = self._identity, self._changed.set
        async with await self._connect() as api, asyncio.TaskGroup() as tasks:
            objects = Objects(api, self._clock)
            secrets = f"/api/v1/namespaces/{identity.namespace}/secrets"
            leaf = Followed(objects, Place(secrets, LEAF_SECRET), changed, self._log)
            configurations = [
                Followed(objects, Place(f"{_ADMISSION}/{kind}", CONFIGURATION), changed, self._log)
                for kind in CONFIGURATIONS
            ]
            self._lease = lease = Lease(
                objects, self._clock, identity.namespace, LEASE, identity.replica, changed, self._log, self._timing
            )
            for followed in (leaf, *configurations):
                tasks.create_task(followed.run())
            tasks.create_task(lease.run())
            while True:
                await self._follow(leaf, configurations)
                # The CA's key is read while leading only.
                authority = Followed(objects, Place(secrets, AUTHORITY_SECRET), changed, self._log)
                following = tasks.create_task(authority.run())
                both = {AUTHORITY_SECRET: authority, LEAF_SECRET: leaf}
                leading = Leading(objects, self._clock, identity.names, both, configurations, self._metrics, self._log)
                await self._lead(leading, leaf, configurations)
                following.cancel()

    @property
    def _leads(self) -> bool:
        return self._lease is not None and self._lease.held

    async def _follow(self, leaf: Followed, configurations: list[Followed]) -> None:
        while not self._leads:
            self._changed.clear()
            self._look(leaf, configurations)
            await self._wait(_LOOK_SECONDS)

    async def _lead(self, leading: Leading, leaf: Followed, configurations: list[Followed]) -> None:
        while self._leads:
            self._changed.clear()
            self._look(leaf, configurations)
            until = await leading.step(self._periods())
            if until is not None:
                await self._wait(min(_LOOK_SECONDS, (until - self._clock.now()).total_seconds()))

    def _look(self, leaf: Followed, configurations: list[Followed]) -> None:
        if leaf.known and all(each.known for each in configurations):
            self._serving.look(leaf.value, _live(configurations), self._clock.now())

    async def _wait(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), max(0.05, seconds))


def _live(configurations: list[Followed]) -> list[Live]:
    return [read_live(each.place.kind, each.value) for each in configurations if each.value is not None]
