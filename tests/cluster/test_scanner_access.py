"""What the scanner's account may do, beside what it does: nothing unused, nothing missing, and never a Secret."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from tests.cluster.client import Object
from tests.cluster.commands import make_deployment
from tests.cluster.controlplane import ControlPlane
from tests.cluster.definitions import wait_until_established
from tests.cluster.installation import SYSTEM
from tests.cluster.knative import make_service, pod_of
from tests.cluster.namespace import Namespace
from tests.cluster.permissions import Use, covering, granted_to, uses
from tests.cluster.report_definitions import report_definitions
from tests.cluster.scanner import ACCOUNT, Scanner, scanner_account
from tests.cluster.test_scanner_events import fail_init, told
from tests.support.until import until
from webhook.scanner.probes.published import Check, ProbeState, read_published
from webhook.scanner.reports.api import OPEN_REPORTS, POLICY_REPORTS, ReportAPI

Make = Callable[..., Namespace]

pytestmark = pytest.mark.usefixtures("morphisms", "knative")

_USER = f"system:serviceaccount:{SYSTEM}:{ACCOUNT}"
_PROBES = f"/api/v1/namespaces/{SYSTEM}/configmaps/morphisms-probes"
_COMPONENTS = ("scanner", "scanner-reports", "scanner-config-maps", "scanner-probes")
_LEASE = f"/apis/coordination.k8s.io/v1/namespaces/{SYSTEM}/leases/{ACCOUNT}"
# Nothing listens there, and probes are about that too.
_CONFIGURATION = "{version: 1, verifier: {url: 'https://127.0.0.1:1'}, vault: {url: 'https://127.0.0.1:1'}}"


@pytest.fixture
def since(cluster: ControlPlane) -> int:
    """Where the audit log of this test begins: scanners of other tests have other components."""
    return cluster.audit.mark()


@pytest.fixture
def scanner(cluster: ControlPlane, since: int, tmp_path: Path) -> Iterator[Scanner]:
    """One that does all that it can do, and finds nothing that another one has left."""
    for api in (POLICY_REPORTS, OPEN_REPORTS):
        cluster.admin.kubectl("delete", "--ignore-not-found", "-f", "-", input=report_definitions(api))
    for path in (_PROBES, _LEASE):
        cluster.admin.request("DELETE", path)
    (tmp_path / "webhook.yaml").write_text(_CONFIGURATION)
    options = ["--events", "--reports", "--config-maps", "--scan-seconds", "1", "--probes"]
    account = scanner_account(cluster, *_COMPONENTS)
    running = Scanner(cluster, account, "scanner-access", *options, "--config", str(tmp_path / "webhook.yaml"))
    running.start()
    yield running
    running.stop()


def test_every_permission_of_the_scanner_is_used_and_none_is_missing(
    cluster: ControlPlane, scanner: Scanner, namespace: Make, since: int
) -> None:
    granted = set(granted_to(cluster, ACCOUNT))
    assert {"morphisms-probes", "config-network", ""} <= {each.name for each in granted}
    here = namespace("inject")
    _publishes_probes(cluster)
    for api in (POLICY_REPORTS, OPEN_REPORTS):
        _writes_reports(cluster, api, namespace)
    _writes_events(cluster, scanner, here)

    def unused() -> set[Use]:
        return granted - {covering(use, granted) for event in _events(cluster, since) for use in uses(event)}

    try:
        until(lambda: not unused())  # the log is a moment behind
    except AssertionError:
        pytest.fail(f"granted and not used: {sorted(unused())}")
    # What is granted may be refused for a moment, until the API server has taken the new roles up.
    refused = [event for event in _events(cluster, since) if event["responseStatus"]["code"] == 403]
    assert {use for event in refused for use in uses(event)} - _allowed(refused, granted) == set()
    asked = [(event.get("objectRef") or {}).get("resource") for event in _events(cluster, since)]
    assert "secrets" not in asked


def _allowed(events: Iterable[Object], granted: set[Use]) -> set[Use]:
    return {use for event in events for use in uses(event) if covering(use, granted) in granted}


def _events(cluster: ControlPlane, since: int) -> list[Object]:
    return [event for event in cluster.audit.events(since) if event["user"]["username"] == _USER]


def _publishes_probes(cluster: ControlPlane) -> None:
    until(lambda: cluster.admin.request("GET", _PROBES).status == 200)
    found = read_published(cluster.admin.get(_PROBES)["data"])
    assert found.probes[Check.VERIFIER].state is ProbeState.FAILED
    assert found.probes[Check.VAULT].state is ProbeState.FAILED


def _writes_reports(cluster: ControlPlane, api: ReportAPI, namespace: Make) -> None:
    """New ones, changed ones, and none where nothing is looked at any more."""
    here = namespace("audit")
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings", "namespace": here.name}}
    here.admin.create(here.path("configmaps"), {**config, "data": {"LEVEL": "debug"}})
    taking = {"envFrom": [{"configMapRef": {"name": "settings"}}]}
    cluster.user("dev").apply(make_deployment(here, "web", taking))
    cluster.admin.kubectl("apply", "--server-side", "-f", "-", input=report_definitions(api))
    wait_until_established(cluster.admin)
    until(lambda: _results(cluster, api, here) == {"pass"})
    cluster.user("dev").apply(make_deployment(here, "web", taking, hostNetwork=True))
    until(lambda: "fail" in _results(cluster, api, here))
    here.label(None)
    until(lambda: not _results(cluster, api, here))


def _results(cluster: ControlPlane, api: ReportAPI, here: Namespace) -> set[str]:
    # A definition that was just made is answered with 404 and 429 for a moment.
    answer = cluster.admin.request("GET", api.path(here.name))
    items = answer.body.get("items", ()) if answer.status == 200 else ()
    return {result["result"] for each in items for result in each["results"]} - {"warn"}


def _writes_events(cluster: ControlPlane, scanner: Scanner, here: Namespace) -> None:
    """One, the same again by a process that does not know it, and counted up."""
    service = make_service("web", here, annotations={"morphisms.dev/secret-tls": "~/tls#certificate"})
    cluster.user("dev").apply(service)
    pod = pod_of(here, "web")
    fail_init(here, pod, "first-id")
    told(here, "Service", "web")
    scanner.restart()
    fail_init(here, pod, "second-id")
    fields = "involvedObject.name=web,source=morphisms-scanner"
    here.admin.until(
        here.path("events"), lambda found: found if "second-id" in str(found) else None, fieldSelector=fields
    )
