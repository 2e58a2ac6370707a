"""Whether each namespace is ready, as Prometheus sees it: bounded, and without what is gone."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from webhook.modes import Mode
from webhook.rules.rule import Severity
from webhook.scanner.finding import Evaluation, Finding, FindingClass, ObjectId
from webhook.scanner.metrics import MOST_NAMESPACES, OTHER, NamespaceMetrics, ScannerMetrics
from webhook.scanner.reports.results import WorkloadResults
from webhook.scanner.scan import NamespaceState, ScanResult

_READY = "morphisms_scanner_namespace_ready"
_WORKLOADS = "morphisms_scanner_workloads"


def _state(ready: int = 1, workloads: int = 1, mode: Mode = Mode.AUDIT, *, is_whole: bool = True) -> NamespaceState:
    return NamespaceState(workloads, ready, mode, Mode.ENFORCE, is_whole)


class Exported:
    """What a scrape of these metrics reads."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.metrics = NamespaceMetrics(self._registry)

    def series(self, name: str) -> dict[tuple[str, ...], float]:
        """The values of a metric by its labels' values, in the order of the labels' names."""
        return _series(self._registry, name)

    def names(self) -> set[str]:
        return {labels[-1] for name in (_READY, _WORKLOADS) for labels in self.series(name)}


def _series(registry: CollectorRegistry, name: str) -> dict[tuple[str, ...], float]:
    text = generate_latest(registry).decode()
    return {
        tuple(value for _, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name
    }


def test_a_namespace_is_ready_when_all_of_its_workloads_are_and_all_were_looked_at() -> None:
    exported = Exported()
    states = {
        "clean": _state(3, 3),
        "left": _state(2, 3),
        "unknown": _state(3, 3, is_whole=False),
        "empty": _state(0, 0),
    }
    exported.metrics.scanned(states, {"images/digest": 1})
    assert exported.series(_READY) == {
        ("audit", "clean"): 1,
        ("audit", "left"): 0,
        ("audit", "unknown"): 0,
        ("audit", "empty"): 1,
    }
    assert exported.series(_WORKLOADS)["audit", "not-ready", "left"] == 1
    assert exported.series("morphisms_scanner_obstacles") == {("images/digest",): 1}


def test_a_namespace_that_goes_or_changes_its_mode_leaves_no_series() -> None:
    exported = Exported()
    exported.metrics.scanned({"gone": _state(), "kept": _state()}, {"images/digest": 1})
    exported.metrics.scanned({"kept": _state(mode=Mode.ENFORCE)}, {})
    assert exported.series(_READY) == {("enforce", "kept"): 1}
    assert exported.names() == {"kept"}
    assert not exported.series("morphisms_scanner_obstacles")


def test_a_thousand_namespaces_have_a_hundred_names_and_one_of_the_rest_is_not_ready() -> None:
    exported = Exported()
    states = {f"team-{number:04}": _state(number != 999, 1) for number in range(1000)}
    exported.metrics.scanned(states, {})
    assert len(exported.names()) == MOST_NAMESPACES + 1
    assert exported.series(_READY)["audit", OTHER] == 0
    assert exported.series(_WORKLOADS)["audit", "ready", OTHER] == 899
    assert exported.series(_WORKLOADS)["audit", "not-ready", OTHER] == 1


def test_a_tenant_who_makes_namespaces_that_sort_first_takes_no_ones_series_away() -> None:
    exported = Exported()
    first = {f"team-{number:03}": _state() for number in range(MOST_NAMESPACES)}
    exported.metrics.scanned(first, {})
    flood = {f"a-{number:03}": _state() for number in range(500)}
    exported.metrics.scanned({**flood, **first}, {})
    assert exported.names() == {*first, OTHER}
    del first["team-007"]
    exported.metrics.scanned({**flood, **first}, {})
    assert exported.names() == {*first, OTHER, "a-000"}, "a place that becomes free goes to the next"


def test_a_namespace_that_churns_makes_no_more_series_than_there_are_namespaces() -> None:
    exported = Exported()
    for number in range(1000):
        exported.metrics.scanned({f"preview-{number}": _state()}, {})
    assert exported.names() == {"preview-999"}


def test_a_namespace_with_the_name_of_the_rest_is_counted_with_the_rest() -> None:
    exported = Exported()
    exported.metrics.scanned({OTHER: _state(0, 1), "shop": _state()}, {})
    assert exported.series(_READY) == {("audit", OTHER): 0, ("audit", "shop"): 1}


@pytest.mark.parametrize("name", ['x"} 1\nmorphisms_scanner_leader 1\n#', "back\\slash", "\u202e\u0000", "a" * 253])
def test_a_name_that_no_api_server_admits_stays_inside_its_label(name: str) -> None:
    exported = Exported()
    exported.metrics.scanned({name: _state()}, {})
    assert exported.series(_READY) == {("audit", name): 1}
    assert not exported.series("morphisms_scanner_leader")


def _results(namespace: str, *rules: str) -> WorkloadResults:
    workload = ObjectId("apps/v1", "Deployment", namespace, "web")
    findings = tuple(
        Finding(rule, Severity.HIGH, FindingClass.YOURS_TO_CHANGE, workload, "spec", "change it", "deny")
        for rule in rules
    )
    results = WorkloadResults(workload, Mode.AUDIT, Mode.ENFORCE)
    results.add(Evaluation(workload, Mode.AUDIT, Mode.ENFORCE, findings))
    return results


def test_a_pass_says_which_rules_stand_in_the_way_and_a_former_leader_says_nothing() -> None:
    registry = CollectorRegistry()
    metrics = ScannerMetrics(registry)
    found = ScanResult({"shop": Mode.AUDIT})
    for namespace, rules in (("shop", ("images/digest", "isolation/exec")), ("free", ("images/digest",))):
        found.workloads[namespace, "Deployment", "web"] = _results(namespace, *rules)
    metrics.led(leads=True)
    metrics.scanned(found, 1.5, has_reports=True)
    metrics.probed({"vault": "failed"})
    assert _series(registry, _READY) == {("audit", "shop"): 0}
    assert _series(registry, "morphisms_scanner_obstacles") == {("images/digest",): 1, ("isolation/exec",): 1}
    metrics.led(leads=False)
    assert not _series(registry, _READY)
    assert not _series(registry, _WORKLOADS)
    assert not _series(registry, "morphisms_scanner_obstacles")
    assert not _series(registry, "morphisms_scanner_probes")
    assert _series(registry, "morphisms_scanner_leader") == {(): 0}
