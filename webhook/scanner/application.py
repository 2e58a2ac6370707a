"""The scanner as a process: health and metrics, a leader, and what it does while it leads."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from server.health import Check
from server.kubernetes.client import Client
from server.kubernetes.lease import TIMING, LeaderElection, LeaseTiming, lease_ref
from server.kubernetes.reflector import TIMING as WATCHING
from server.kubernetes.reflector import ReflectorTiming
from server.limits import Limits
from server.metrics import new_registry
from server.service import Address, Application, Background
from server.watched import FileMetrics
from webhook.cluster.live import LiveCluster
from webhook.cluster.replica import Replica
from webhook.configuration.model import Configuration
from webhook.configuration_file import watched_configuration
from webhook.scanner.events.watcher import EventWatcher
from webhook.scanner.metrics import ScannerMetrics
from webhook.scanner.probes.prober import Prober
from webhook.scanner.reporter import Reporter

LEASE: Final = "morphisms-scanner"


@dataclass(frozen=True, slots=True)
class ScannerSettings:
    """The command line's settings. `replica`: which process this is, by the pod's name.

    `events`, `reports`, `probes`: what it writes. `scan_seconds`: the time between two passes for reports.
    `probe_seconds`: the time between two rounds of probes. `config_maps`: whether reports look at ConfigMaps that
    workloads take variables from.
    """

    replica: Replica
    metrics_listen: Address | None = None
    events: bool = True
    reports: bool = False
    configuration: Path | None = None
    scan_seconds: float = 300.0
    config_maps: bool = False
    probes: bool = False
    probe_seconds: float = 300.0
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
    parts: list[EventWatcher | Reporter | Prober] = []
    gates: dict[str, Check] = {}
    background: list[Background] = []
    files = FileMetrics(registry)
    if settings.events:
        events = EventWatcher(metrics, lambda: election.is_leader, settings.watching)
        parts.append(events)
        gates["watches"] = events.problem
    namespace, watched = settings.replica.namespace, None
    if settings.reports or settings.probes:
        watched = watched_configuration(settings.configuration, files, lambda new: configured(new))  # noqa: PLW0108
    default = Configuration()

    def current() -> Configuration:
        return default if watched is None else watched.value

    if watched is not None:
        background.append(watched.watch)
    if settings.probes:
        parts.append(
            Prober(current, metrics, lambda: election.is_leader, namespace=namespace, seconds=settings.probe_seconds)
        )
    cluster: LiveCluster | None = None
    if settings.reports:
        cluster = LiveCluster(current(), connect=connect, timing=settings.watching, observe=metrics.observe)
        gates["cluster"] = cluster.problem
        background.append(cluster.run)
        parts.append(
            Reporter(
                current,
                cluster,
                metrics,
                lambda: election.is_leader,
                namespace=namespace,
                seconds=settings.scan_seconds,
                reads_config_maps=settings.config_maps,
                timing=settings.watching,
            )
        )

    def configured(new: Configuration) -> None:
        if cluster is not None:
            cluster.configured(new)

    def _led() -> None:
        metrics.led(leads=election.is_leader)
        for part in parts:
            part.wake()

    async def run() -> None:
        async with await connect() as client, asyncio.TaskGroup() as tasks:
            tasks.create_task(election.run(client))
            for part in parts:
                tasks.create_task(part.run(client))

    return Application(
        routes={},
        certificate=None,
        metrics_listen=settings.metrics_listen,
        limits=replace(Limits(), lame_duck_seconds=0.0),
        gates=gates,
        background=(run, *background),
        registry=registry,
        files=files,
    )
