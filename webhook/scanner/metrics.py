"""Metrics of the scanner. Only the names of namespaces that have a mode are labels, and of those a bounded number.

A name of a namespace is the API server's to check, so a label can hold no other text than a DNS label.
"""

from __future__ import annotations

from collections import Counter as Count
from collections.abc import Iterable, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge

from webhook.scanner.events.trouble import DENIED, INIT_FAILED, Trouble
from webhook.scanner.scan import NamespaceState, ScanResult

MOST_NAMESPACES: Final = 100
"""The most namespaces with series of their own."""

OTHER: Final = "other"
"""The label of all other namespaces. One that has this name is counted with them."""


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
        self._probes = Gauge(
            "morphisms_scanner_probes",
            "1 for the state that the last probe of each check had.",
            ["check", "state"],
            registry=registry,
        )
        self._namespaces = NamespaceMetrics(registry)
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

    def scanned(self, found: ScanResult, seconds: float, *, has_reports: bool) -> None:
        """Report a pass."""
        self._scans.labels("done").inc()
        self._objects.set(found.objects)
        self._seconds.set(seconds)
        self._scanned_at.set_to_current_time()
        self._has_reports.set(has_reports)
        self._namespaces.scanned(found.namespaces(), found.obstacles())

    def led(self, *, leads: bool) -> None:
        """Report whether this replica leads. One that does not makes no pass and no probe, so it knows neither."""
        self.leader.set(leads)
        if not leads:
            self._namespaces.forget()
            self._probes.clear()

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


class NamespaceMetrics:
    """Whether each namespace is ready for mode enforce, as of the last pass."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._ready = Gauge(
            "morphisms_scanner_namespace_ready",
            "1 where all workloads of a namespace with a mode were looked at, and none of their next pods would be"
            " denied in mode enforce. Namespaces beyond the first hundred are one, `other`.",
            ["workload_namespace", "mode"],
            registry=registry,
        )
        self._workloads = Gauge(
            "morphisms_scanner_workloads",
            "Workloads in namespaces with a mode; all namespaces beyond the first hundred are `other`.",
            ["workload_namespace", "mode", "state"],
            registry=registry,
        )
        self._obstacles = Gauge(
            "morphisms_scanner_obstacles",
            "Workloads in namespaces with a mode for which this rule stands in the way of mode enforce.",
            ["rule"],
            registry=registry,
        )
        self._named: list[str] = []

    def scanned(self, namespaces: Mapping[str, NamespaceState], obstacles: Mapping[str, int]) -> None:
        """Replace all series, so that a namespace that is gone, or has another mode, leaves none behind."""
        self._name(namespaces)
        ready: dict[tuple[str, str], bool] = {}
        counts: Count[tuple[str, str, str]] = Count()
        named = frozenset(self._named)
        for name, state in namespaces.items():
            label, mode = name if name in named else OTHER, state.mode.value
            ready[label, mode] = ready.get((label, mode), True) and state.is_ready
            counts[label, mode, "ready"] += state.ready
            counts[label, mode, "not-ready"] += state.workloads - state.ready
        for gauge in (self._ready, self._workloads, self._obstacles):
            gauge.clear()
        for labels, is_ready in ready.items():
            self._ready.labels(*labels).set(is_ready)
        for each, count in counts.items():
            self._workloads.labels(*each).set(count)
        for rule, count in obstacles.items():
            self._obstacles.labels(rule).set(count)

    def forget(self) -> None:
        """Remove all series."""
        self.scanned({}, {})

    def _name(self, namespaces: Mapping[str, NamespaceState]) -> None:
        """Choose whose series bear a name: whose did before goes on, whatever names come to sort before it."""
        kept = [name for name in self._named if name in namespaces]
        new = sorted(namespaces.keys() - set(kept))
        self._named = (kept + new)[:MOST_NAMESPACES]
