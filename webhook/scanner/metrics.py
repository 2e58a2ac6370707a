"""Metrics of the scanner. No label is a name that an author can write."""

from __future__ import annotations

from collections import Counter as Count
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge

from webhook.scanner.events.trouble import DENIED, INIT_FAILED, Trouble


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
        self.leader = Gauge("morphisms_scanner_leader", "1 on the replica that writes.", registry=registry)

    def observe(self, resource: str, what: str) -> None:
        """As `server.kubernetes.reflector.Observer`; what happens to single objects is not counted."""
        if what in ("listed", "opened", "interrupted", "malformed"):
            self._watches.labels(resource, what).inc()

    def wrote(self, reason: str, outcome: str) -> None:
        """Count one Event."""
        self._events.labels(reason, outcome).inc()

    def troubled(self, troubles: Iterable[Trouble]) -> None:
        """Report what there is now."""
        counts = Count(each.reason for each in troubles)
        for reason in (DENIED, INIT_FAILED):
            self._troubles.labels(reason).set(counts[reason])
