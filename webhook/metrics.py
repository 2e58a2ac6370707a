"""Metrics of admission. Labels are paths, modes, outcomes, rule ids and names in the configuration: users add none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.registry import Collector

from webhook.configuration.exceptions import PolicyException
from webhook.decision import Decision

_SECONDS_PER_DAY = 86400.0


class AdmissionMetrics:
    """Counts decisions and violations; reports the age of the view of the cluster."""

    def __init__(self, registry: CollectorRegistry, age: Callable[[], float]) -> None:
        self._decisions = Counter(
            "morphisms_admission_decisions",
            "Requests decided.",
            ["path", "mode", "decision", "reason"],
            registry=registry,
        )
        self._violations = Counter(
            "morphisms_admission_violations",
            "Rules found violated.",
            ["rule", "mode", "decision", "path"],
            registry=registry,
        )
        Gauge("morphisms_snapshot_age_seconds", "Age of the view of the cluster.", registry=registry).set_function(age)
        self._configuration = Gauge(
            "morphisms_configuration_info", "1; digest of the effective configuration.", ["digest"], registry=registry
        )
        self._covered = Counter(
            "morphisms_exceptions_used",
            "Violations that an exception of the configuration covered.",
            ["workload_namespace", "workload", "rule", "mode", "path"],
            registry=registry,
        )
        # `namespace` alone would be the scraped pod's.
        self._days_left = _DaysLeft()
        registry.register(self._days_left)
        # Children looked up once: labels() costs more than the increment itself.
        self._children: dict[tuple[str, ...], Counter] = {}

    def decided(self, path: str, decision: Decision) -> None:
        """Count one decision."""
        mode = decision.mode.value if decision.mode is not None else ""
        self._count(self._decisions, (path, mode, decision.outcome, decision.reason))
        for rule in {violation.rule.id for violation in decision.violations}:
            self._count(self._violations, (rule, mode, decision.outcome, path))
        for each in decision.covered:
            exception = each.exception
            self._count(self._covered, (exception.namespace, exception.workload, each.violation.rule.id, mode, path))

    def configured(self, digest: str, exceptions: tuple[PolicyException, ...] = ()) -> None:
        """Report the configuration in use."""
        self._configuration.clear()
        self._configuration.labels(digest).set(1)
        self._days_left.exceptions = exceptions

    def _count(self, counter: Counter, labels: tuple[str, ...]) -> None:
        child = self._children.get(labels)
        if child is None:
            child = self._children[labels] = counter.labels(*labels)
        child.inc()


class _DaysLeft(Collector):
    """Computes at each scrape how long the exceptions still last; negative after one has expired."""

    def __init__(self) -> None:
        self.exceptions: tuple[PolicyException, ...] = ()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        family = GaugeMetricFamily(
            "morphisms_exception_days_left",
            "Days until an exception of the configuration expires.",
            labels=["workload_namespace", "workload", "rule"],
        )
        now = datetime.now(UTC)
        for each in self.exceptions:
            days = (each.expires - now).total_seconds() / _SECONDS_PER_DAY
            for rule in each.rules:
                family.add_metric([each.namespace, each.workload, rule], days)
        yield family
