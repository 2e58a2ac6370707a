"""Scans again and again while this replica leads, and writes what it found as reports."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from server import logs
from server.kubernetes.errors import KubernetesError, reason_of, status_of
from server.kubernetes.objects import ObjectRef, WatchedObject
from server.kubernetes.reflector import TIMING, ReflectorTiming
from server.kubernetes.untyped import TIME_FORM, is_name
from webhook.configuration.model import Configuration
from webhook.configuration.templates_map import read_map
from webhook.scanner.cluster.facts import read_facts
from webhook.scanner.cluster.findings import cluster_findings
from webhook.scanner.config_maps import config_map_findings
from webhook.scanner.evaluation import Evaluator
from webhook.scanner.finding import Evaluation, ObjectId
from webhook.scanner.lister import ClusterLister
from webhook.scanner.metrics import ScannerMetrics
from webhook.scanner.never_looked_at import never_looked_at
from webhook.scanner.reports.api import served_api
from webhook.scanner.reports.results import READY, Result, summary_of
from webhook.scanner.reports.writer import ReportWriter
from webhook.scanner.scan import NOT_LISTED, NamespaceState, ScanResult, scan
from webhook.snapshot import Snapshot
from webhook.wellknown import TEMPLATES_CONFIG_MAP

if TYPE_CHECKING:
    from server.kubernetes.client import Client
    from webhook.cluster.live import LiveCluster

_LOOK_SECONDS: Final = 0.5
_RETRY_SECONDS: Final = 30.0
# A ClusterReport is one object of etcd's.
_MOST_NAMESPACES: Final = 1000
_MOST_FINDINGS: Final = 200
_MOST_CONFIG_MAPS: Final = 5000


class Reporter:
    """`run` until cancelled. `seconds` is the time between two passes."""

    def __init__(
        self,
        configuration: Callable[[], Configuration],
        cluster: LiveCluster,
        metrics: ScannerMetrics,
        is_leader: Callable[[], bool],
        *,
        namespace: str,
        seconds: float,
        reads_config_maps: bool = False,
        timing: ReflectorTiming = TIMING,
    ) -> None:
        self._configuration = configuration
        self._cluster = cluster
        self._metrics = metrics
        self._is_leader = is_leader
        self._namespace = namespace
        self._seconds = seconds
        self._reads_config_maps = reads_config_maps
        self._wakes = asyncio.Event()
        self._said_absent = False
        ref = ObjectRef(f"/api/v1/namespaces/{namespace}/configmaps", TEMPLATES_CONFIG_MAP)
        self._templates = WatchedObject(ref, lambda: None, timing)

    def wake(self) -> None:
        """Look whether a pass is due, such as when this replica begins to lead."""
        self._wakes.set()

    async def run(self, client: Client) -> None:
        """Watch what evaluations depend on, and scan."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._templates.run(client))
            while True:
                seconds = _LOOK_SECONDS
                if self._is_leader() and self._cluster.synced and self._templates.is_known:
                    seconds = await self._pass(client)
                with suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await self._wakes.wait()
                self._wakes.clear()

    async def _pass(self, client: Client) -> float:
        """One pass; the seconds until the next one."""
        started = time.monotonic()
        try:
            api = await served_api(client)
            writer = None if api is None else ReportWriter(client, api, client.clock.now(), self._metrics.reported)
            if writer is not None:
                await writer.read()
            found = await scan(
                ClusterLister(client),
                Evaluator(self._configuration(), snapshot := self._snapshot()),
                snapshot,
                without=(self._namespace, "kube-system"),
            )
            if self._reads_config_maps:
                await self._look_at_config_maps(client, found)
            if writer is not None and self._is_leader():
                await self._write(client, writer, found)
        except KubernetesError as error:
            logs.warning("scan_failed", reason=reason_of(error), status=status_of(error))
            self._metrics.scan_failed()
            return min(self._seconds, _RETRY_SECONDS)
        if api is None and not self._said_absent:
            logs.warning("reports_absent", advice="install the CustomResourceDefinitions of openreports.io")
        self._said_absent = api is None
        if self._is_leader():  # else another replica's numbers are newer
            self._metrics.scanned(found, time.monotonic() - started, has_reports=api is not None)
        logs.info(
            "scanned",
            objects=found.objects,
            workloads=len(found.workloads),
            seconds=round(time.monotonic() - started, 1),
        )
        return self._seconds

    async def _look_at_config_maps(self, client: Client, found: ScanResult) -> None:
        """Look at those that workloads take variables from. None of their values is kept."""
        for (namespace, name), users in list(found.config_maps.items())[:_MOST_CONFIG_MAPS]:
            if not (is_name(namespace) and is_name(name)):
                continue
            item = await client.find(f"/api/v1/namespaces/{namespace}/configmaps/{name}") or {}
            for key, references in users.items():
                known = found.workloads[key]
                about = known.workload
                findings = tuple(config_map_findings(about, name, item.get("data"), references, self._configuration()))
                known.add(Evaluation(about, known.mode, known.target, findings))
        if len(found.config_maps) > _MOST_CONFIG_MAPS:
            logs.warning("config_maps_left_out", count=len(found.config_maps) - _MOST_CONFIG_MAPS)

    def _snapshot(self) -> Snapshot:
        value = self._templates.value
        return self._cluster.current().with_templates(None if value is None else read_map(value.get("data")).templates)

    async def _write(self, client: Client, writer: ReportWriter, found: ScanResult) -> None:
        for workload in found.workloads.values():
            results = workload.results
            await writer.write(workload.workload, results, summary_of(results), is_clean=workload.is_ready)
        await self._write_cluster(client, writer, found)
        if not found.not_listed:  # what was not listed may be there still
            await writer.prune()

    async def _write_cluster(self, client: Client, writer: ReportWriter, found: ScanResult) -> None:
        states = found.namespaces()
        since = _clean_since(await writer.cluster_report(), states, client.clock.now())
        facts = await read_facts(client)
        value = self._templates.value
        templates = read_map(None if value is None else value.get("data"))
        about = list(cluster_findings(self._configuration(), self._cluster.current(), facts, templates))
        results = [*about[:_MOST_FINDINGS], *_cluster_results(found, states, since)]
        counts = {
            name: sum(each.result == name for each in results) for name in ("pass", "fail", "warn", "error", "skip")
        }
        is_clean = not counts["fail"] and not counts["error"]
        await writer.write(None, results, counts, is_clean=is_clean)


def _cluster_results(found: ScanResult, states: Mapping[str, NamespaceState], since: Mapping[str, str]) -> Any:
    for kind in found.not_listed:
        yield Result(NOT_LISTED, "error", "medium", f"not evaluated: {kind} objects could not be listed", ())
    for name, state in list(states.items())[:_MOST_NAMESPACES]:
        left = state.workloads - state.ready
        message = (
            f"{left} of {state.workloads} workloads are not ready for mode {state.target.value}"
            if left
            else "not evaluated: objects of some kinds could not be listed"
            if not state.is_whole
            else f"all {state.workloads} workloads are ready for mode {state.target.value}"
        )
        properties = {"mode": state.mode.value, "ready": str(state.ready), "workloads": str(state.workloads)}
        if name in since:
            properties["cleanSince"] = since[name]
        yield Result(
            READY,
            "pass" if state.is_ready else "fail" if left else "error",
            "info" if state.is_ready else "high",
            message,
            tuple(sorted(properties.items())),
            ObjectId("v1", "Namespace", "", name),
        )
    if len(states) > _MOST_NAMESPACES:
        yield Result("scan/more", "warn", "low", f"and {len(states) - _MOST_NAMESPACES} more namespaces", ())
    yield from never_looked_at(found.makers)


def _clean_since(report: Mapping[str, Any], states: Mapping[str, NamespaceState], now: datetime) -> dict[str, str]:
    """Since when each namespace that is ready has been, going on from the last report."""
    before: dict[str, str] = {}
    for result in report.get("results") or ():
        for resource in result.get("resources") or ():
            before[str(resource.get("name"))] = str((result.get("properties") or {}).get("cleanSince", ""))
    return {
        name: before.get(name) or now.astimezone(UTC).strftime(TIME_FORM)
        for name, state in states.items()
        if state.is_ready
    }
