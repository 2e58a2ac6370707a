"""Metrics of the scanner. Only the names of namespaces that have a mode are labels, and of those a bounded number."""

from __future__ import annotations

from collections import Counter as Count
from collections.abc import Iterable, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge

from webhook.scanner.events.trouble import DENIED, INIT_FAILED, Trouble
from webhook.scanner.scan import NamespaceState

_MOST_NAMESPACES: Final = 100


class ScannerMetrics:
    """What the scanner sees and writes."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._watches = Counter(
            "morphisms_scanner_watches", "What happened to the watches.", ["resource", "what"], registry=registry
        )
        self._events = Counter(
            "morphisms_scanner_events",
            "Events, by whether they were written.",
            ["reason", "outcome"],
            registry=registry,
        )
        self._troubles = Gauge(
            "morphisms_scanner_troubles", "Objects whose pods do not start, by reason.", ["reason"], registry=registry
        )
        self._reports = Counter(
            "morphisms_scanner_reports", "Reports, by what became of them.", ["outcome"], registry=registry
        )
        self._has_reports = Gauge(
            "morphisms_scanner_reports_served", "1 where the cluster has a kind for reports.", registry=registry
        )
        self._scans = Counter("morphisms_scanner_scans", "Passes over the cluster.", ["outcome"], registry=registry)
        self._seconds = Gauge("morphisms_scanner_scan_seconds", "How long the last pass took.", registry=registry)
        self._objects = Gauge("morphisms_scanner_scan_objects", "Objects in the last pass.", registry=registry)
        self._scanned_at = Gauge(
            "morphisms_scanner_scanned_timestamp_seconds", "When the last pass ended.", registry=registry
        )
        self._workloads = Gauge(
            "morphisms_scanner_workloads",
            "Workloads in namespaces with a mode; all namespaces beyond the first hundred are `other`.",
            ["workload_namespace", "mode", "state"],
            registry=registry,
        )
        self._probes = Gauge(
            "morphisms_scanner_probes",
            "1 for the state that the last probe of each check had.",
            ["check", "state"],
            registry=registry,
        )
        self.leader = Gauge("morphisms_scanner_leader", "1 on the replica that writes.", registry=registry)

    def observe(self, resource: str, what: str) -> None:
        """As `server.kubernetes.reflector.Observer`; what happens to single objects is not counted."""
        if what in ("listed", "opened", "interrupted", "malformed"):
            self._watches.labels(resource, what).inc()

    def wrote(self, reason: str, outcome: str) -> None:
        """Count one Event."""
        self._events.labels(reason, outcome).inc()

    def reported(self, outcome: str) -> None:
        """Count one report."""
        self._reports.labels(outcome).inc()

    def scan_failed(self) -> None:
        """Count a pass that ended early."""
        self._scans.labels("failed").inc()

    def scanned(
        self, objects: int, seconds: float, namespaces: Mapping[str, NamespaceState], *, has_reports: bool
    ) -> None:
        """Report a pass."""
        self._scans.labels("done").inc()
        self._objects.set(objects)
        self._seconds.set(seconds)
        self._scanned_at.set_to_current_time()
        self._has_reports.set(has_reports)
        counts: Count[tuple[str, str, str]] = Count()
        for number, (name, state) in enumerate(namespaces.items()):
            label = name if number < _MOST_NAMESPACES else "other"
            counts[label, state.mode.value, "ready"] += state.ready
            counts[label, state.mode.value, "not-ready"] += state.workloads - state.ready
        self._workloads.clear()
        for labels, count in counts.items():
            self._workloads.labels(*labels).set(count)

    def probed(self, states: Mapping[str, str]) -> None:
        """Report a round of probes, by check."""
        self._probes.clear()
        for check, state in states.items():
            self._probes.labels(check, state).set(1)

    def troubled(self, troubles: Iterable[Trouble]) -> None:
        """Report what there is now."""
        counts = Count(each.reason for each in troubles)
        for reason in (DENIED, INIT_FAILED):
            self._troubles.labels(reason).set(counts[reason])
