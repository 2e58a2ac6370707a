"""What a developer reads with kubectl describe: why the Service's pods do not start, and what to ask the operator for.

Knative shows neither a denial of a later pod nor the end of morphisms-init on the Service.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.cluster.client import Client, Object
from tests.cluster.controlplane import ControlPlane
from tests.cluster.installation import SYSTEM
from tests.cluster.knative import Knative, make_service, pod_of, settled
from tests.cluster.namespace import Namespace
from tests.cluster.process import Process
from tests.cluster.scanner import Scanner, scanner_account
from tests.support.until import until

Make = Callable[..., Namespace]

pytestmark = pytest.mark.usefixtures("morphisms")

_DIGEST = "registry.example/app@sha256:" + "a" * 64


@pytest.fixture(scope="module")
def account(cluster: ControlPlane) -> Client:
    """The identity that the component's manifests give the scanner."""
    return scanner_account(cluster, "scanner")


@pytest.fixture(scope="module")
def scanners(cluster: ControlPlane, account: Client) -> Iterator[list[Process]]:
    """Two replicas."""
    running: list[Process] = [Scanner(cluster, account, f"scanner-{number}", "--events") for number in range(2)]
    for each in running:
        each.start()
    yield running
    for each in running:
        if each.running:
            each.stop()


def _events(here: Namespace, kind: str, name: str) -> list[Object]:
    fields = f"involvedObject.kind={kind},involvedObject.name={name},source=morphisms-scanner"
    return here.admin.items(here.path("events"), fieldSelector=fields)


def told(here: Namespace, kind: str, name: str, seconds: float = 90) -> Object:
    """The scanner's one Event about the object."""
    fields = f"involvedObject.kind={kind},involvedObject.name={name},source=morphisms-scanner"
    (event,) = here.admin.until(here.path("events"), list, seconds=seconds, fieldSelector=fields)
    return event


def _deployment(here: Namespace, **spec: Any) -> Object:
    labels = {"app": "web"}
    pod = {"containers": [{"name": "app", "image": _DIGEST}], **spec}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": here.name},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


def fail_init(here: Namespace, pod: Object, correlation_id: str, **state: Any) -> None:
    """Report, as a kubelet does, that the pod's morphisms-init has ended."""
    message = f"morphisms-init: the verifier refused this guest [verifier-refused, correlation id {correlation_id}]"
    ended = {
        "exitCode": 12,
        "reason": "Error",
        "message": message,
        "startedAt": "2026-01-01T00:00:00Z",
        "finishedAt": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "containerID": f"containerd://{correlation_id}",
    }
    status = {
        "name": "morphisms-init",
        "image": "x",
        "imageID": "x",
        "ready": False,
        "restartCount": 1,
        "state": state or {"terminated": ended},
        "lastState": {"terminated": ended} if state else {},
    }
    here.admin.patch(f"{here.pods(pod['metadata']['name'])}/status", {"status": {"initContainerStatuses": [status]}})


@pytest.mark.usefixtures("scanners")
def test_a_denied_pod_of_a_deployment_is_told_on_the_deployment(cluster: ControlPlane, namespace: Make) -> None:
    here = namespace("enforce")
    cluster.user("dev").apply(_deployment(here, hostNetwork=True))
    event = told(here, "Deployment", "web")
    assert event["reason"] == "MorphismsDenied"
    assert "[isolation/host-namespaces]" in event["message"]
    assert event["metadata"]["annotations"]["morphisms.dev/reason-code"] == "isolation/host-namespaces"
    described = cluster.user("dev").kubectl("-n", here.name, "describe", "deployment", "web").out
    assert re.search(r"Warning +MorphismsDenied .*morphisms-scanner", described)
    assert "isolation/host-namespaces" in described


@pytest.mark.usefixtures("scanners")
def test_a_service_that_enforce_refuses_as_it_comes_back_from_zero_says_so(
    cluster: ControlPlane, knative: Knative, namespace: Make
) -> None:
    """The Revision stays ready in Knative's eyes, hours after somebody tightened the namespace."""
    here = namespace("audit")
    service = make_service("web", here)
    container = service["spec"]["template"]["spec"]["containers"][0]
    container["env"] = [{"name": "DB_PASSWORD", "value": "hunter2-Tr0ub4dor-correct"}]
    cluster.user("dev").apply(service)
    settled(here, "web")
    pod = pod_of(here, "web")
    here.label("enforce")
    here.admin.delete(here.pods(pod["metadata"]["name"]), gracePeriodSeconds="0")
    event = told(here, "Service", "web")
    assert event["reason"] == "MorphismsDenied"
    assert "hunter2" not in str(event)
    described = cluster.user("dev").kubectl("-n", here.name, "describe", "ksvc", "web").out
    assert "secrets/plaintext-env" in described


@pytest.mark.usefixtures("scanners")
def test_a_service_whose_pods_get_no_secrets_says_why_and_which_correlation_id_to_ask_about(
    cluster: ControlPlane, knative: Knative, namespace: Make
) -> None:
    here = namespace("inject")
    cluster.user("dev").apply(make_service("web", here, annotations={"morphisms.dev/secret-tls": "~/tls#certificate"}))
    pod = pod_of(here, "web")
    fail_init(here, pod, "first-id")
    event = told(here, "Service", "web")
    assert (event["reason"], event["count"]) == ("MorphismsInitFailed", 1)
    annotations = event["metadata"]["annotations"]
    assert annotations["morphisms.dev/reason-code"] == "verifier-refused"
    assert annotations["morphisms.dev/correlation-id"] == "first-id"
    described = cluster.user("dev").kubectl("-n", here.name, "describe", "ksvc", "web").out
    assert "the verifier refused this guest [verifier-refused, correlation id first-id]" in described
    # It tries again, and fails again: the same Event, with the newer id.
    fail_init(here, pod, "second-id", waiting={"reason": "CrashLoopBackOff"})
    fields = "involvedObject.name=web,source=morphisms-scanner"
    (again,) = here.admin.until(
        here.path("events"), lambda found: found if "second-id" in str(found) else None, fieldSelector=fields
    )
    assert again["metadata"]["name"] == event["metadata"]["name"]
    assert again["count"] == 2
    assert again["firstTimestamp"] == event["firstTimestamp"]


def test_another_replica_goes_on_where_the_leader_ends_and_what_was_told_is_not_told_twice(
    cluster: ControlPlane, account: Client, scanners: list[Process], namespace: Make
) -> None:
    here = namespace("enforce")
    cluster.user("dev").apply(_deployment(here, hostNetwork=True))
    before = told(here, "Deployment", "web")
    leader = _leader(cluster)
    next(each for each in scanners if each.name == leader).stop()
    until(lambda: _leader(cluster) not in ("", leader))
    other = namespace("enforce")
    cluster.user("dev").apply(_deployment(other, hostPID=True))
    assert told(other, "Deployment", "web")["reason"] == "MorphismsDenied"
    (after,) = _events(here, "Deployment", "web")
    assert after["metadata"]["uid"] == before["metadata"]["uid"]


def _leader(cluster: ControlPlane) -> str:
    path = f"/apis/coordination.k8s.io/v1/namespaces/{SYSTEM}/leases/morphisms-scanner"
    return str(cluster.admin.get(path)["spec"].get("holderIdentity", ""))
