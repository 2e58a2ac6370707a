"""Reports are small, change only with what they say, and keep since when a workload is clean."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from webhook.modes import Mode
from webhook.rules import POD
from webhook.rules.rule import Severity
from webhook.scanner.finding import Evaluation, Finding, FindingClass, ObjectId
from webhook.scanner.reports.api import OPEN_REPORTS, POLICY_REPORTS, ReportAPI
from webhook.scanner.reports.document import Known, clean_since, make_report
from webhook.scanner.reports.results import MAX_RESULTS, READY, Result, WorkloadResults, summary_of

_SERVICE = ObjectId("serving.knative.dev/v1", "Service", "shop", "web", "u-1")
_NOW = datetime(2027, 1, 1, tzinfo=UTC)
_LATER = datetime(2027, 1, 2, tzinfo=UTC)
_FIXED = Finding("placement/node-affinity", Severity.CRITICAL, FindingClass.FIXED_BY_INJECTION, _SERVICE, "", "later")
_YOURS = Finding(
    "images/digest", Severity.MEDIUM, FindingClass.YOURS_TO_CHANGE, _SERVICE, "spec.containers[0]", "pin it", "deny"
)
_GRAVE = Finding("isolation/host-path", Severity.HIGH, FindingClass.YOURS_TO_CHANGE, _SERVICE, "", "no", "deny")
_BLIND = Finding("scan/unreadable", Severity.HIGH, FindingClass.NOT_EVALUATED, _SERVICE, "", "cannot be read")


def _gathered(*findings: Finding, of: ObjectId = _SERVICE) -> WorkloadResults:
    gathered = WorkloadResults(_SERVICE, Mode.AUDIT, Mode.ENFORCE)
    gathered.add(Evaluation(of, Mode.AUDIT, Mode.ENFORCE, findings))
    return gathered


def _report(
    gathered: WorkloadResults, known: Known | None = None, now: datetime = _NOW, api: ReportAPI = OPEN_REPORTS
) -> dict[str, Any] | None:
    results = gathered.results
    return make_report(api, _SERVICE, results, summary_of(results), is_clean=gathered.is_ready, known=known, now=now)


def _known(gathered: WorkloadResults, known: Known | None = None, now: datetime = _NOW) -> Known:
    report = _report(gathered, known, now)
    assert report is not None
    return Known.of(report)


@pytest.mark.parametrize(
    ("findings", "ready", "results"),
    [
        pytest.param((), True, ["pass"], id="nothing-found"),
        pytest.param((_FIXED,), True, ["warn", "pass"], id="injection-fixes-it"),
        pytest.param((_FIXED, _YOURS, _GRAVE), False, ["fail", "fail", "warn"], id="yours"),
        pytest.param((_BLIND,), False, ["error"], id="not-evaluated"),
    ],
)
def test_a_workload_is_called_ready_only_where_nothing_denies_and_all_was_looked_at(
    findings: tuple[Finding, ...], ready: bool, results: list[str]
) -> None:
    gathered = _gathered(*findings)
    assert gathered.is_ready == ready
    assert [each.result for each in gathered.results] == results
    assert ready == any(each.rule == READY for each in gathered.results)
    assert summary_of(gathered.results)["pass"] == len(POD) - len(
        {each.rule for each in findings} - {"scan/unreadable"}
    )


def test_the_gravest_finding_comes_first() -> None:
    assert [each.rule for each in _gathered(_FIXED, _YOURS, _GRAVE).results][:2] == [
        "isolation/host-path",
        "images/digest",
    ]


def test_what_fifty_revisions_share_is_said_once_and_where_it_was_met_first() -> None:
    gathered = WorkloadResults(_SERVICE, Mode.AUDIT, Mode.ENFORCE)
    for number in range(50):
        revision = ObjectId("serving.knative.dev/v1", "Revision", "shop", f"web-{number:05}")
        mine = Finding(*(_YOURS.rule, _YOURS.severity, _YOURS.kind, revision, _YOURS.field, _YOURS.message, "deny"))
        gathered.add(Evaluation(revision, Mode.AUDIT, Mode.ENFORCE, (mine,)))
    (result,) = gathered.results
    assert dict(result.properties)["object"] == "Revision/web-00000"
    assert dict(result.properties)["objects"] == "50"


def test_a_report_is_bounded_whatever_an_author_writes() -> None:
    findings = [
        Finding(
            "images/digest",
            Severity.HIGH,
            FindingClass.YOURS_TO_CHANGE,
            _SERVICE,
            "f" * 5000,
            f"{n} " + "m" * 5000,
            "deny",
        )
        for n in range(500)
    ]
    gathered = _gathered(*findings)
    report = _report(gathered)
    assert report is not None
    assert len(report["results"]) == MAX_RESULTS + 1
    assert f"and {500 - MAX_RESULTS} more" in report["results"][-1]["message"]
    assert len(json.dumps(report)) < 100_000
    assert not gathered.is_ready


def test_a_report_that_says_the_same_is_not_written_again() -> None:
    assert _report(_gathered(_YOURS), _known(_gathered(_YOURS)), _LATER) is None
    assert _report(_gathered(_GRAVE), _known(_gathered(_YOURS)), _LATER) is not None
    assert _report(_gathered(), _known(_gathered()), _LATER) is None


def test_clean_since_goes_on_while_it_is_clean_and_begins_anew_after_a_finding() -> None:
    clean = _known(_gathered())
    assert clean_since(clean) == _NOW
    # Another thing that injection fixes: still clean.
    assert clean_since(_known(_gathered(_FIXED), clean, _LATER)) == _NOW
    failing = _known(_gathered(_YOURS), clean, _LATER)
    assert clean_since(failing) is None
    again = _known(_gathered(), failing, _LATER)
    assert clean_since(again) == _LATER
    assert clean_since(Known("x", "nonsense")) is None
    assert clean_since(None) is None


def test_a_namespace_keeps_its_own_time_when_the_cluster_becomes_clean() -> None:
    """`morphisms graduate` counts from it, so another namespace's last finding does not make this one wait anew."""
    own = (("cleanSince", "2026-12-01T00:00:00Z"),)
    shop, new = (
        Result(READY, "pass", "info", "all", more, ObjectId("v1", "Namespace", "", name))
        for name, more in (("shop", own), ("new", ()))
    )
    report = make_report(OPEN_REPORTS, None, (shop, new), {"pass": 2}, is_clean=True, known=None, now=_NOW)
    assert report is not None
    since = [each["properties"]["cleanSince"] for each in report["results"]]
    assert since == ["2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z"]


@pytest.mark.parametrize("api", [OPEN_REPORTS, POLICY_REPORTS], ids=lambda api: api.api_version)
def test_a_report_has_the_types_that_dashboards_read(api: ReportAPI) -> None:
    """Policy Reporter reads severity, category, source and properties; numbers among these are refused."""
    report = _report(_gathered(_FIXED, _YOURS), api=api)
    assert report is not None
    assert ("source" in report) == (api is OPEN_REPORTS)
    assert report["kind"] == api.kind
    for result in report["results"]:
        assert result["source"] == "morphisms"
        assert result["severity"] in ("critical", "high", "medium", "low", "info")
        assert result["result"] in ("pass", "fail", "warn", "error", "skip")
        assert result["category"].startswith("Confidential Computing")
        assert all(isinstance(value, str) for value in result["properties"].values())
        assert result["timestamp"] == {"seconds": int(_NOW.timestamp()), "nanos": 0}
    assert report["scope"]["uid"] == "u-1"
    assert report["metadata"]["name"] == "morphisms-u-1"
