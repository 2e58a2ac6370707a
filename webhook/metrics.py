"""Metrics of admission. Labels are paths, modes, outcomes and rule ids: users cannot add values."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge

from webhook.decision import Decision


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
        # Children looked up once: labels() costs more than the increment itself.
        self._children: dict[tuple[str, ...], Counter] = {}

    def decided(self, path: str, decision: Decision) -> None:
        """Count one decision."""
        mode = decision.mode.value if decision.mode is not None else ""
        self._count(self._decisions, (path, mode, decision.outcome, decision.reason))
        for rule in {violation.rule.id for violation in decision.violations}:
            self._count(self._violations, (rule, mode, decision.outcome, path))

    def configured(self, digest: str) -> None:
        """Report the configuration in use."""
        self._configuration.clear()
        self._configuration.labels(digest).set(1)

    def _count(self, counter: Counter, labels: tuple[str, ...]) -> None:
        child = self._children.get(labels)
        if child is None:
            child = self._children[labels] = counter.labels(*labels)
        child.inc()
