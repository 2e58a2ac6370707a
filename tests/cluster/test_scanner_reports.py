"""What a security officer's dashboard reads: a report for each workload and one of the cluster, in either API."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.cluster.client import Object
from tests.cluster.controlplane import ControlPlane
from tests.cluster.definitions import wait_until_established
from tests.cluster.knative import make_service, settled
from tests.cluster.namespace import Namespace
from tests.cluster.report_definitions import report_definitions
from tests.cluster.scanner import Scanner, scanner_account
from tests.support.until import until
from webhook.modes import Mode
from webhook.rules.rule import Severity
from webhook.scanner.finding import Evaluation, Finding, FindingClass, ObjectId
from webhook.scanner.reports.api import OPEN_REPORTS, POLICY_REPORTS, ReportAPI
from webhook.scanner.reports.document import make_report
from webhook.scanner.reports.results import WorkloadResults, summary_of

Make = Callable[..., Namespace]

pytestmark = pytest.mark.usefixtures("morphisms")

_EMPTY: Object = {"results": []}
# The leader is elected again first.
_AFTER_RESTART_SECONDS = 180.0
_OPTIONS = ("--events", "--reports", "--config-maps", "--scan-seconds", "1")
_IMAGE = "registry.example/app@sha256:" + "a" * 64


@pytest.fixture(scope="module")
def scanner(cluster: ControlPlane) -> Iterator[Scanner]:
    """One that passes over the cluster each second."""
    account = scanner_account(cluster, "scanner", "scanner-reports", "scanner-config-maps")
    running = Scanner(cluster, account, "scanner-reports", *_OPTIONS)
    running.start()
    yield running
    running.stop()


def _next_pass(scanner: Scanner) -> None:
    """Wait until a pass has begun after now, and ended."""
    goal = scanner.metric('morphisms_scanner_scans_total{outcome="done"}') + 2
    until(lambda: scanner.metric('morphisms_scanner_scans_total{outcome="done"}') >= goal)


def _deployment(here: Namespace, name: str, **spec: Any) -> Object:
    labels = {"app": name}
    pod = {"containers": [{"name": "app", "image": _IMAGE}], **spec}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": here.name},
        "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}},
    }


def _made_by_a_rollout(here: Namespace) -> None:
    """A ReplicaSet as Argo's controller makes it: its pods are looked at, and the Rollout is not."""
    item = _deployment(here, "canary")
    owner = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "name": "canary", "uid": "u", "controller": True}
    item |= {"kind": "ReplicaSet", "metadata": {**item["metadata"], "ownerReferences": [owner]}}
    here.admin.create(here.path("replicasets", group="apps/v1"), item)


def _never_looked_at(cluster: ControlPlane, api: ReportAPI) -> list[str]:
    """What the cluster's report says about that."""
    results = cluster.admin.get(f"{api.path('')}/morphisms")["results"]
    return [each["message"] for each in results if each["rule"] == "scan/never-looked-at"]


def _reports(here: Namespace, api: ReportAPI) -> dict[str, Object]:
    # A definition that was just made is answered with 404 and 429 for a moment.
    answer = here.admin.request("GET", api.path(here.name))
    return {each["scope"]["name"]: each for each in answer.body.get("items", ())} if answer.status == 200 else {}


def _failed(report: Object) -> dict[str, Object]:
    return {each["rule"]: each for each in report["results"] if each["result"] == "fail"}


@pytest.mark.usefixtures("knative")
def test_reports_appear_in_the_api_that_the_cluster_has_and_follow_the_workloads(
    cluster: ControlPlane, scanner: Scanner, namespace: Make
) -> None:
    here, dev = namespace("audit"), cluster.user("dev")
    dev.apply(_deployment(here, "good"), _deployment(here, "bad", hostNetwork=True))
    _made_by_a_rollout(here)
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings", "namespace": here.name}}
    here.admin.create(here.path("configmaps"), {**config, "data": {"DB_PASSWORD": "hunter2-Tr0ub4dor"}})
    with_settings = _deployment(here, "configured")
    container = with_settings["spec"]["template"]["spec"]["containers"][0]
    container["envFrom"] = [{"configMapRef": {"name": "settings"}}]
    dev.apply(with_settings)
    service = make_service("web", here)
    service["spec"]["template"]["spec"]["containers"][0]["env"] = [
        {"name": "DB_PASSWORD", "value": "hunter2-Tr0ub4dor"}
    ]
    dev.apply(service)
    settled(here, "web")
    # Neither API: that is said, and the scanner goes on.
    for api in (POLICY_REPORTS, OPEN_REPORTS):
        cluster.admin.kubectl("delete", "--ignore-not-found", "-f", "-", input=report_definitions(api))
    _next_pass(scanner)
    assert scanner.metric("morphisms_scanner_reports_served") == 0
    assert "reports_absent" in scanner.log.read_text()
    for api in (POLICY_REPORTS, OPEN_REPORTS):
        cluster.admin.kubectl("apply", "--server-side", "-f", "-", input=report_definitions(api))
        wait_until_established(cluster.admin)
        until(lambda api=api: len(_reports(here, api)) == 5)  # type: ignore[misc]
        reports = _reports(here, api)
        assert reports.keys() == {"good", "bad", "configured", "web", "canary"}
        fault = _failed(reports["bad"])["isolation/host-namespaces"]
        assert (fault["severity"], fault["source"], fault["scored"]) == ("critical", "morphisms", True)
        assert fault["properties"]["field"] == "spec.template.spec.hostNetwork"
        assert fault["properties"]["class"] == "yours-to-change"
        assert reports["bad"]["summary"]["fail"] == 1
        (owner,) = reports["bad"]["metadata"]["ownerReferences"]
        deployment = here.admin.get(here.deployments("bad"))
        assert (owner["kind"], owner["uid"]) == ("Deployment", deployment["metadata"]["uid"])
        assert (
            "cleanSince" in next(each for each in reports["good"]["results"] if each["rule"] == "ready")["properties"]
        )
        assert "secrets/plaintext-env" in _failed(reports["web"])
        assert "scan/config-map" in {each["rule"] for each in reports["configured"]["results"]}
        assert "hunter2" not in str(reports)
        result = _of_cluster(cluster, api, here)
        assert (result["result"], result["properties"]["ready"], result["properties"]["workloads"]) == (
            "fail",
            "3",
            "5",
        )
        never = _never_looked_at(cluster, api)
        assert any("Helm's release Secrets" in each for each in never)
        assert any("objects of kind Rollout (argoproj.io)" in each for each in never)
    api = OPEN_REPORTS
    # What says the same is not written again.
    before = {name: each["metadata"]["resourceVersion"] for name, each in _reports(here, api).items()}
    _next_pass(scanner)
    assert {name: each["metadata"]["resourceVersion"] for name, each in _reports(here, api).items()} == before
    clean = _reports(here, api)["good"]["metadata"]["annotations"]["morphisms.dev/clean-since"]
    # After the advice is followed, all is ready, and stays clean since then.
    dev.apply(_deployment(here, "bad"))
    dev.kubectl("-n", here.name, "delete", "ksvc", "web")
    until(lambda: "web" not in _reports(here, api))
    until(lambda: not _failed(_reports(here, api)["bad"]))
    assert "morphisms.dev/clean-since" in _reports(here, api)["bad"]["metadata"]["annotations"]
    assert _reports(here, api)["good"]["metadata"]["annotations"]["morphisms.dev/clean-since"] == clean
    until(lambda: _of_cluster(cluster, api, here)["result"] == "pass")
    assert "cleanSince" in _of_cluster(cluster, api, here)["properties"]
    # A namespace that is not looked at any more has no reports.
    here.label(None)
    until(lambda: not _reports(here, api))


def _of_cluster(cluster: ControlPlane, api: ReportAPI, here: Namespace) -> Object:
    """What the cluster's report says of the namespace."""

    def found() -> Object | None:
        answer = cluster.admin.request("GET", f"{api.path('')}/morphisms")
        return next(
            (
                each
                for each in answer.body.get("results", ())
                if here.name in [resource["name"] for resource in each.get("resources", ())]
            ),
            None,
        )

    until(found)
    result = found()
    assert result is not None
    return result


def test_after_the_api_server_was_away_reports_and_events_say_what_is_now(
    cluster: ControlPlane, scanner: Scanner, namespace: Make
) -> None:
    """Its watches are answered 410 Gone, for the versions that they knew are compacted away, and much has changed."""
    api = OPEN_REPORTS
    cluster.admin.kubectl("apply", "--server-side", "-f", "-", input=report_definitions(api))
    wait_until_established(cluster.admin)
    dev, here, later = cluster.user("dev"), namespace("audit"), namespace()
    dev.apply(_deployment(here, "web"), _deployment(later, "web", hostPID=True))
    until(lambda: "web" in _reports(here, api))
    before = _reports(here, api)["web"], _reports(later, api)
    assert (_failed(before[0]), before[1]) == ({}, {})
    # It hangs meanwhile: had it found nobody at the address, it would list again anyway.
    scanner.signal(signal.SIGSTOP)
    try:
        # Whatever version it watches from is a former one afterwards.
        here.admin.create(here.path("configmaps"), {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}})
        cluster.processes["kube-apiserver"].stop()
        cluster.etcd.compact()
        cluster.processes["kube-apiserver"].start()
        dev.apply(_deployment(here, "web", hostNetwork=True))
        later.label("audit")
    finally:
        scanner.signal(signal.SIGCONT)
    until(lambda: '"gone"' in scanner.log.read_text(), _AFTER_RESTART_SECONDS)
    for each in (here, later):
        until(
            lambda each=each: "isolation/host-namespaces" in _failed(_reports(each, api).get("web", _EMPTY)),  # type: ignore[misc]
            _AFTER_RESTART_SECONDS,
        )
    # And a pod that is refused now is told of on its owner.
    later.label("enforce")
    dev.apply(_deployment(later, "refused", hostNetwork=True))
    fields = "involvedObject.kind=Deployment,involvedObject.name=refused,source=morphisms-scanner"
    (event,) = later.admin.until(later.path("events"), list, seconds=_AFTER_RESTART_SECONDS, fieldSelector=fields)
    assert event["reason"] == "MorphismsDenied"


@pytest.mark.parametrize("api", [POLICY_REPORTS, OPEN_REPORTS], ids=lambda api: api.api_version)
def test_a_report_has_no_member_that_the_published_definition_lacks(
    cluster: ControlPlane, namespace: Make, api: ReportAPI
) -> None:
    """An API server drops unknown members in silence, and dashboards would miss them."""
    cluster.admin.kubectl("apply", "--server-side", "-f", "-", input=report_definitions(api))
    wait_until_established(cluster.admin)
    here = namespace()
    workload = ObjectId("apps/v1", "Deployment", here.name, "web", "u-1")
    gathered = WorkloadResults(workload, Mode.AUDIT, Mode.ENFORCE)
    kinds = [*FindingClass, *FindingClass]
    findings = tuple(
        Finding(f"family/rule-{number}", severity, kind, workload, "spec", "change it", "deny")
        for number, (kind, severity) in enumerate(zip(kinds, [*Severity], strict=False))
    )
    gathered.add(Evaluation(workload, Mode.AUDIT, Mode.ENFORCE, findings))
    results = gathered.results
    for is_clean in (True, False):
        now = datetime(2027, 1, 1, tzinfo=UTC)
        report = make_report(api, workload, results, summary_of(results), is_clean=is_clean, known=None, now=now)
        assert report is not None
        path = api.path(here.name)
        until(lambda path=path: cluster.admin.request("GET", path).status == 200)  # type: ignore[misc]
        cluster.admin.create(path, report, fieldValidation="Strict", dryRun="All")
