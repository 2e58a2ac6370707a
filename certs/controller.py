"""One replica's certificates: what it serves, and, while it leads, the rotation of what all replicas serve."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from prometheus_client import CollectorRegistry

from certs.identity import Identity
from certs.leader import Leader, WatchedState
from certs.metrics import CertificateMetrics
from certs.periods import Periods
from certs.serving import Install, Serving
from certs.state import AUTHORITY_SECRET, LEAF_SECRET
from server.kubernetes.client import Client
from server.kubernetes.clock import ServerClock
from server.kubernetes.lease import TIMING, LeaderElection, LeaseTiming, lease_ref
from server.kubernetes.objects import ObjectRef, WatchedObject
from server.kubernetes.reflector import ReflectorTiming

LEASE: Final = "morphisms-webhook"
CONFIGURATIONS: Final = ("mutatingwebhookconfigurations", "validatingwebhookconfigurations")
_ADMISSION: Final = "/apis/admissionregistration.k8s.io/v1"
CONFIGURATION: Final = "morphisms"

# What is served is evaluated again at least so often: certificates expire without an event.
_RECONCILE_SECONDS: Final = 30.0
_WATCHING: Final = ReflectorTiming(backoff=(0.5, 15.0))


class CertificateController:
    """Runs beside the server. `install` gets each pair to serve; `periods` is called before each step."""

    def __init__(
        self,
        identity: Identity,
        *,
        connect: Callable[[], Awaitable[Client]],
        install: Install,
        periods: Callable[[], Periods],
        registry: CollectorRegistry,
        timing: LeaseTiming = TIMING,
    ) -> None:
        self._identity = identity
        self._connect = connect
        self._periods = periods
        self._clock = ServerClock()  # the client's, once there is one
        self._changed = asyncio.Event()
        self._election = LeaderElection(
            lease_ref(identity.namespace, LEASE), identity.replica, self._changed.set, timing
        )
        metrics = CertificateMetrics(registry, lambda: self._election.is_leader, lambda: self._clock.skew_seconds)
        self._metrics = metrics
        self._serving = Serving(identity.names, install, metrics)

    def problem(self) -> str | None:
        """As `Serving.problem`: a gate of readiness."""
        return self._serving.problem()

    async def run(self) -> None:
        """Serve and rotate until cancelled. Raises what `connect` raises, and nothing else."""
        async with await self._connect() as client, asyncio.TaskGroup() as tasks:
            self._clock = client.clock
            secrets = f"/api/v1/namespaces/{self._identity.namespace}/secrets"
            leaf = self._watched(secrets, LEAF_SECRET)
            configurations = [self._watched(f"{_ADMISSION}/{kind}", CONFIGURATION) for kind in CONFIGURATIONS]
            for watched in (leaf, *configurations):
                tasks.create_task(watched.run(client))
            tasks.create_task(self._election.run(client))
            while True:
                # The CA's key is read while leading only.
                state = WatchedState(self._watched(secrets, AUTHORITY_SECRET), leaf, configurations)
                await self._follow(state)
                watching = tasks.create_task(state.authority.run(client))
                await self._lead(Leader(client, self._identity.names, state, self._metrics), state)
                watching.cancel()

    def _watched(self, collection: str, name: str) -> WatchedObject:
        return WatchedObject(ObjectRef(collection, name), self._changed.set, _WATCHING)

    async def _follow(self, state: WatchedState) -> None:
        while not self._election.is_leader:
            self._changed.clear()
            self._reconcile(state)
            await self._wait(_RECONCILE_SECONDS)

    async def _lead(self, leader: Leader, state: WatchedState) -> None:
        while self._election.is_leader:
            self._changed.clear()
            self._reconcile(state)
            until = await leader.step(self._periods())
            if until is not None:
                await self._wait(min(_RECONCILE_SECONDS, (until - self._clock.now()).total_seconds()))

    def _reconcile(self, state: WatchedState) -> None:
        if state.leaf.is_known and all(each.is_known for each in state.configurations):
            self._serving.reconcile(state.leaf.value, state.live(), self._clock.now())

    async def _wait(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), max(0.05, seconds))
