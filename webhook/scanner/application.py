"""The scanner as a process: health and metrics, a leader, and what it does while it leads."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final

from server.kubernetes.client import Client
from server.kubernetes.lease import TIMING, LeaderElection, LeaseTiming, lease_ref
from server.kubernetes.reflector import TIMING as WATCHING
from server.kubernetes.reflector import ReflectorTiming
from server.limits import Limits
from server.metrics import new_registry
from server.service import Address, Application
from webhook.cluster.replica import Replica
from webhook.scanner.events.watcher import EventWatcher
from webhook.scanner.metrics import ScannerMetrics

LEASE: Final = "morphisms-scanner"


@dataclass(frozen=True, slots=True)
class ScannerSettings:
    """The command line's settings. `replica`: which process this is, by the pod's name."""

    replica: Replica
    metrics_listen: Address | None = None
    lease: LeaseTiming = TIMING
    watching: ReflectorTiming = WATCHING


def make_application(settings: ScannerSettings, connect: Callable[[], Awaitable[Client]]) -> Application:
    """The scanner as `server.service.run` takes it: nothing calls it, so it serves health and metrics alone."""
    registry = new_registry()
    metrics = ScannerMetrics(registry)
    election = LeaderElection(
        lease_ref(settings.replica.namespace, LEASE),
        settings.replica.name,
        lambda: _led(),  # noqa: PLW0108 - made below
        settings.lease,
    )
    events = EventWatcher(metrics, lambda: election.is_leader, settings.watching)

    def _led() -> None:
        metrics.leader.set(election.is_leader)
        events.wake()

    async def run() -> None:
        async with await connect() as client, asyncio.TaskGroup() as tasks:
            tasks.create_task(election.run(client))
            tasks.create_task(events.run(client))

    return Application(
        routes={},
        certificate=None,
        metrics_listen=settings.metrics_listen,
        limits=replace(Limits(), lame_duck_seconds=0.0),
        gates={"watches": events.problem},
        background=(run,),
        registry=registry,
    )
