"""Metrics of admission: what exceptions cover, and how long they last."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client import CollectorRegistry

from webhook.configuration.model import Configuration
from webhook.decision import Covered, Decision
from webhook.metrics import AdmissionMetrics
from webhook.modes import Mode
from webhook.rules import BY_ID
from webhook.rules.rule import Violation


def _configuration(expires: datetime) -> Configuration:
    entry = {
        "namespace": "shop",
        "owner": "DaemonSet/agent",
        "rules": ["isolation/host-path", "images/digest"],
        "reason": "SEC-123",
        "expires": f"{expires:%Y-%m-%dT%H:%M:%SZ}",
    }
    return Configuration.model_validate({"exceptions": [entry]})


def test_days_left_count_down_and_below_zero_and_leave_with_their_entry() -> None:
    registry = CollectorRegistry()
    metrics = AdmissionMetrics(registry, lambda: 0.0)

    def left(rule: str) -> float | None:
        labels = {"workload_namespace": "shop", "workload": "DaemonSet/agent", "rule": rule}
        return registry.get_sample_value("morphisms_exception_days_left", labels)

    for days in (30, 6.5, -2):
        metrics.configured("d", _configuration(datetime.now(UTC) + timedelta(days=days)).exceptions)
        assert left("isolation/host-path") == pytest.approx(days, abs=0.01)
        assert left("images/digest") == pytest.approx(days, abs=0.01)
    metrics.configured("d", ())
    assert left("isolation/host-path") is None


def test_each_violation_that_an_exception_covers_is_counted_under_its_workload() -> None:
    registry = CollectorRegistry()
    metrics = AdmissionMetrics(registry, lambda: 0.0)
    (exception,) = _configuration(datetime(2030, 1, 1, tzinfo=UTC)).exceptions
    covered = Covered(Violation(BY_ID["images/digest"], "spec.containers[0].image", "pin it"), exception)
    metrics.decided("/validate/pod", Decision("allowed", Mode.ENFORCE, "clean", covered=(covered, covered)))
    labels = {
        "workload_namespace": "shop",
        "workload": "DaemonSet/agent",
        "rule": "images/digest",
        "mode": "enforce",
        "path": "/validate/pod",
    }
    assert registry.get_sample_value("morphisms_exceptions_used_total", labels) == 2
    assert registry.get_sample_value("morphisms_admission_violations_total", {"rule": "images/digest"}) is None
