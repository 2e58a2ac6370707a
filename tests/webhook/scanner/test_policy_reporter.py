"""Policy Reporter reads back what is written: the members of its result type, and the id by which it keeps each result.

Its Go types refuse a whole report for one member of another type. It keeps a result by the property `resultID`, and
without one by a hash of scope, policy, rule, result, category and message: of two with the same id it keeps one.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec
import pytest

from webhook.modes import Mode
from webhook.rules.rule import Severity
from webhook.scanner.finding import Evaluation, Finding, FindingClass, ObjectId
from webhook.scanner.reports.api import OPEN_REPORTS, POLICY_REPORTS, ReportAPI
from webhook.scanner.reports.document import make_report
from webhook.scanner.reports.results import Result, WorkloadResults, summary_of

_NOW = datetime(2027, 1, 1, tzinfo=UTC)
_SERVICE = ObjectId("serving.knative.dev/v1", "Service", "shop", "web", "u-1")
_OTHER = ObjectId("serving.knative.dev/v1", "Service", "shop", "api", "u-2")
_APIS = pytest.mark.parametrize("api", [OPEN_REPORTS, POLICY_REPORTS], ids=lambda api: api.api_version)


class _Reference(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    api_version: str
    kind: str
    name: str
    namespace: str = ""
    uid: str = ""


class _Timestamp(msgspec.Struct, forbid_unknown_fields=True):
    seconds: int
    nanos: int


class _Result(msgspec.Struct, forbid_unknown_fields=True):
    """The members that it reads of a result, in both APIs; all that is shown in its tables is required here."""

    source: Literal["morphisms"]
    policy: str
    rule: str
    category: str
    severity: Literal["critical", "high", "medium", "low", "info"]
    result: Literal["pass", "fail", "warn", "error", "skip"]
    message: str
    scored: bool
    timestamp: _Timestamp
    properties: dict[str, str]
    resources: list[_Reference] = []


class _Summary(msgspec.Struct, forbid_unknown_fields=True):
    fail: int
    error: int
    warn: int
    skip: int
    # `pass` is no name in Python.
    passed: int = msgspec.field(name="pass")


class _Report(msgspec.Struct):
    metadata: dict[str, Any]
    summary: _Summary
    results: list[_Result]
    scope: _Reference | None = None


def _read(report: dict[str, Any] | None) -> _Report:
    assert report is not None
    return msgspec.json.decode(msgspec.json.encode(report), type=_Report)


def _finding(
    number: int = 0,
    *,
    kind: FindingClass = FindingClass.YOURS_TO_CHANGE,
    severity: Severity = Severity.HIGH,
    message: str = "no",
    of: ObjectId = _SERVICE,
) -> Finding:
    return Finding("isolation/host-path", severity, kind, of, f"spec.volumes[{number}]", message, "deny")


def _workload_report(api: ReportAPI, *findings: Finding, of: ObjectId = _SERVICE, now: datetime = _NOW) -> _Report:
    gathered = WorkloadResults(of, Mode.AUDIT, Mode.ENFORCE)
    gathered.add(Evaluation(of, Mode.AUDIT, Mode.ENFORCE, findings))
    results = gathered.results
    ready = gathered.is_ready
    return _read(make_report(api, of, results, summary_of(results), is_clean=ready, known=None, now=now))


def _cluster_report(api: ReportAPI, results: Sequence[Result]) -> _Report:
    return _read(make_report(api, None, results, summary_of([*results]), is_clean=False, known=None, now=_NOW))


def _ids(*reports: _Report) -> list[str]:
    return [each.properties["resultID"] for report in reports for each in report.results]


@_APIS
@pytest.mark.parametrize("kind", FindingClass)
@pytest.mark.parametrize("severity", Severity)
def test_a_dashboard_shows_each_class_and_severity(api: ReportAPI, kind: FindingClass, severity: Severity) -> None:
    expected = {
        FindingClass.YOURS_TO_CHANGE: "fail",
        FindingClass.FIXED_BY_INJECTION: "warn",
        FindingClass.NOT_EVALUATED: "error",
    }
    report = _workload_report(api, _finding(kind=kind, severity=severity))
    shown = report.results[0]
    assert (shown.result, shown.severity, shown.rule) == (expected[kind], severity.value, "isolation/host-path")
    assert (shown.source, shown.policy) == ("morphisms", "morphisms")
    assert shown.category == "Confidential Computing: isolation"
    assert (shown.timestamp.seconds, shown.timestamp.nanos) == (int(_NOW.timestamp()), 0)
    assert shown.properties["class"] == kind.value
    # Results without an object of their own are about the scope.
    assert shown.resources == []
    assert report.scope == _Reference("serving.knative.dev/v1", "Service", "web", "shop", "u-1")
    assert (report.summary.fail, report.summary.error, report.summary.warn) == tuple(
        int(shown.result == each) for each in ("fail", "error", "warn")
    )


@_APIS
def test_a_dashboard_keeps_findings_that_differ_in_their_field_or_workload_alone(api: ReportAPI) -> None:
    ids = _ids(
        _workload_report(api, *(_finding(number) for number in range(20))),
        _workload_report(api, *(_finding(number, of=_OTHER) for number in range(20)), of=_OTHER),
        _workload_report(api, _finding(kind=FindingClass.FIXED_BY_INJECTION), _finding(message="another")),
    )
    assert len(set(ids)) == len(ids) == 42


@_APIS
def test_a_dashboard_keeps_what_is_said_alike_of_several_objects_of_the_cluster(api: ReportAPI) -> None:
    spaces = [ObjectId("v1", "Namespace", "", name) for name in ("shop", "lab")]
    results = [Result("ready", "fail", "info", "1 of 2 are ready", (), each) for each in spaces]
    report = _cluster_report(api, [*results, Result("scan/more", "warn", "low", "and 2 more", ())])
    assert report.scope is None
    assert [each.resources for each in report.results] == [
        [_Reference("v1", "Namespace", "shop")],
        [_Reference("v1", "Namespace", "lab")],
        [],
    ]
    assert len(set(_ids(report))) == 3


def test_a_finding_that_stays_is_the_same_result_in_the_next_report() -> None:
    later = datetime(2027, 1, 2, tzinfo=UTC)
    first = _workload_report(OPEN_REPORTS, _finding())
    again = _workload_report(OPEN_REPORTS, _finding(1), _finding(), now=later)
    assert _ids(first)[0] in _ids(again)
    assert _ids(_workload_report(OPEN_REPORTS)) == _ids(_workload_report(OPEN_REPORTS, now=later))


@_APIS
def test_a_hostile_field_is_read_as_text(api: ReportAPI) -> None:
    hostile = "\x00\u202e</script>\U0001f600'\"; DROP TABLE policy_report"
    shown = _workload_report(api, _finding(message=hostile)).results[0]
    assert shown.message == hostile
