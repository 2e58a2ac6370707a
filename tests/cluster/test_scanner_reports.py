"""What a security officer's dashboard reads: a report for each workload and one of the cluster, in either API."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from tests.cluster.binaries import REPORTS
from tests.cluster.client import Object
from tests.cluster.controlplane import ControlPlane
from tests.cluster.definitions import wait_until_established
from tests.cluster.namespace import Namespace
from tests.support.until import until
from webhook.modes import Mode
from webhook.rules.rule import Severity
from webhook.scanner.finding import Evaluation, Finding, FindingClass, ObjectId
from webhook.scanner.reports.api import OPEN_REPORTS, POLICY_REPORTS, ReportAPI
from webhook.scanner.reports.document import make_report
from webhook.scanner.reports.results import WorkloadResults, summary_of

Make = Callable[..., Namespace]

pytestmark = pytest.mark.usefixtures("morphisms")

_IMAGE = "registry.example/app@sha256:" + "a" * 64


def _definitions(api: ReportAPI) -> list[Object]:
    """The published definitions; those of wgpolicyk8s.io are the same but for names, and what openreports.io added."""
    folder: Path = REPORTS.folder / "reports-api" / "config" / "crd"
    found = [yaml.safe_load(file.read_text()) for file in sorted(folder.glob("*.yaml"))]
    if api is POLICY_REPORTS:
        for definition in found:
            is_cluster = definition["spec"]["names"]["kind"] == "ClusterReport"
            plural = api.cluster_resource if is_cluster else api.resource
            kind = api.cluster_kind if is_cluster else api.kind
            definition["metadata"]["name"] = f"{plural}.wgpolicyk8s.io"
            names = {"kind": kind, "listKind": f"{kind}List", "plural": plural, "singular": kind.lower()}
            definition["spec"] |= {"group": "wgpolicyk8s.io", "names": names}
            (version,) = definition["spec"]["versions"]
            version["name"] = "v1alpha2"
            for added in ("source", "configuration"):
                version["schema"]["openAPIV3Schema"]["properties"].pop(added, None)
    return found


@pytest.mark.parametrize("api", [POLICY_REPORTS, OPEN_REPORTS], ids=lambda api: api.api_version)
def test_a_report_has_no_member_that_the_published_definition_lacks(
    cluster: ControlPlane, namespace: Make, api: ReportAPI
) -> None:
    """An API server drops unknown members in silence, and dashboards would miss them."""
    cluster.admin.kubectl("apply", "--server-side", "-f", "-", input=_definitions(api))
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
