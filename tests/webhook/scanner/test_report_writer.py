"""Reports follow what passes find: made, changed, and deleted where a workload is not looked at any more."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from server.kubernetes.client import Client
from server.kubernetes.credentials import ServiceAccount
from tests.webhook.scanner.store import Store, running
from webhook.modes import Mode
from webhook.rules.rule import Severity
from webhook.scanner.finding import Evaluation, Finding, FindingClass, ObjectId
from webhook.scanner.reports.api import OPEN_REPORTS, POLICY_REPORTS, ReportAPI, served_api
from webhook.scanner.reports.results import Result, WorkloadResults, summary_of
from webhook.scanner.reports.writer import ReportWriter

_WEB = ObjectId("apps/v1", "Deployment", "shop", "web", "u-web")
_JOB = ObjectId("batch/v1", "Job", "shop", "job", "u-job")
_BAD = Finding("images/digest", Severity.MEDIUM, FindingClass.YOURS_TO_CHANGE, _WEB, "spec", "pin it", "deny")
_FIRST, _SECOND = datetime(2027, 1, 1, tzinfo=UTC), datetime(2027, 1, 2, tzinfo=UTC)
_PATH = "/apis/openreports.io/v1alpha1/namespaces/shop/reports/morphisms-u-web"

# Of the reports that `_pass` makes, as the last version without `resultID` computed it.
_FORMER_CONTENT = {
    "morphisms-u-web": "7ac7daa39a47896139d02ebe8d808659",
    "morphisms-u-job": "0ffe33d2a4ba37e1158b9ad20720d96a",
    "morphisms": "546f760f5a32f1bec455456c0fdc0ccd",
}


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    store = Store()
    async with running(store):
        yield store


@pytest.fixture
async def client(store: Store) -> AsyncIterator[Client]:
    async with Client(ServiceAccount(store.url)) as client:
        yield client


async def _pass(client: Client, now: datetime, **workloads: tuple[Finding, ...]) -> None:
    """One pass that finds this of `web` and `job`; what is not named is not looked at."""
    writer = ReportWriter(client, OPEN_REPORTS, now)
    await writer.read()
    for name, findings in workloads.items():
        workload = {"web": _WEB, "job": _JOB}[name]
        gathered = WorkloadResults(workload, Mode.AUDIT, Mode.ENFORCE)
        gathered.add(Evaluation(workload, Mode.AUDIT, Mode.ENFORCE, findings))
        results = gathered.results
        await writer.write(workload, results, summary_of(results), is_clean=gathered.is_ready)
    about = Result("ready", "pass", "info", "all", (), ObjectId("v1", "Namespace", "", "shop"))
    await writer.write(None, (about,), {"pass": 1}, is_clean=True)
    await writer.prune()


async def test_a_report_is_made_changed_and_deleted_with_what_passes_find(store: Store, client: Client) -> None:
    await _pass(client, _FIRST, web=(_BAD,), job=())
    report = store.objects[_PATH]
    assert [each["rule"] for each in report["results"]] == ["images/digest"]
    assert "morphisms.dev/clean-since" not in report["metadata"]["annotations"]
    (about,) = store.objects["/apis/openreports.io/v1alpha1/clusterreports/morphisms"]["results"]
    assert about["resources"] == [{"apiVersion": "v1", "kind": "Namespace", "name": "shop"}]
    made = store.writes.copy()
    assert made == {"POST": 3}
    await _pass(client, _SECOND, web=(_BAD,), job=())
    assert store.writes == made, "what says the same is not written again"
    await _pass(client, _SECOND, web=(), job=())
    report = store.objects[_PATH]
    assert [each["rule"] for each in report["results"]] == ["ready"]
    assert report["metadata"]["annotations"]["morphisms.dev/clean-since"] == "2027-01-02T00:00:00Z"
    await _pass(client, _SECOND, web=(_BAD,))
    assert "morphisms.dev/clean-since" not in store.objects[_PATH]["metadata"]["annotations"]
    assert not any("u-job" in path for path in store.objects), "that workload is gone"


async def test_what_an_older_version_wrote_is_written_once_more_and_stays_clean(store: Store, client: Client) -> None:
    """Its results have no `resultID`, so Policy Reporter keeps one of several that differ in their fields alone."""
    await _pass(client, _FIRST, web=(_BAD,), job=())
    for path, report in store.objects.items():
        report["metadata"]["annotations"]["morphisms.dev/content"] = _FORMER_CONTENT[path.rpartition("/")[2]]
        for each in report["results"]:
            del each["properties"]["resultID"]
    store.writes.clear()
    for _ in range(2):
        await _pass(client, _SECOND, web=(_BAD,), job=())
        assert store.writes == {"PATCH": 3}, "once"
    for path, report in store.objects.items():
        assert all("resultID" in each["properties"] for each in report["results"])
        is_clean = path != _PATH
        since = report["metadata"]["annotations"].get("morphisms.dev/clean-since")
        assert since == ("2027-01-01T00:00:00Z" if is_clean else None)


async def test_a_write_that_is_refused_keeps_no_other_from_being_made(store: Store, client: Client) -> None:
    store.fails = [403]
    await _pass(client, _FIRST, web=(_BAD,), job=())
    assert _PATH not in store.objects
    assert any("u-job" in path for path in store.objects)
    await _pass(client, _FIRST, web=(_BAD,), job=())
    assert _PATH in store.objects


@pytest.mark.parametrize(
    ("served", "expected"),
    [
        pytest.param((), None, id="none"),
        pytest.param((POLICY_REPORTS,), POLICY_REPORTS, id="the-older"),
        pytest.param((POLICY_REPORTS, OPEN_REPORTS), OPEN_REPORTS, id="both"),
    ],
)
async def test_reports_are_written_in_the_api_that_the_cluster_has(
    store: Store, client: Client, served: tuple[ReportAPI, ...], expected: ReportAPI | None
) -> None:
    for api in served:
        resources: list[dict[str, Any]] = [{"name": api.resource}, {"name": api.cluster_resource}]
        store.put(f"/apis/{api.api_version}", resources=resources)
    store.put("/apis/openreports.io/v1beta9", resources=[{"name": "reports"}])
    assert await served_api(client) == expected
