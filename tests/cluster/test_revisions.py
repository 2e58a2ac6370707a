"""Old Revisions: immutable, routed to again, and started from zero long after they were admitted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.cluster.client import Object
from tests.cluster.controlplane import ControlPlane
from tests.cluster.knative import Knative, from_zero, make_service, pod_of, revisions, settled
from tests.cluster.namespace import Namespace

Make = Callable[..., Namespace]

pytestmark = pytest.mark.usefixtures("morphisms")


def _service(here: Namespace, *traffic: dict[str, Any], argument: str) -> Object:
    annotations = {"morphisms.dev/secret-tls": "~/tls#certificate"}
    service = make_service("web", here, annotations=annotations, command=["/app"], args=[argument])
    if traffic:
        service["spec"]["traffic"] = list(traffic)
    return service


def _two_revisions(cluster: ControlPlane, here: Namespace) -> None:
    for argument in ("old", "new"):
        cluster.user("dev").apply(_service(here, argument=argument))
        settled(here, "web")
    assert revisions(here) == ["web-00001", "web-00002"]


def _argument(pod: Object) -> str:
    (container,) = (each for each in pod["spec"]["containers"] if each["name"] == "user-container")
    assert container["command"][0] == "/app", "files only: nothing to wrap"
    return str(container["args"][0])


_OLD = {"revisionName": "web-00001", "latestRevision": False}


@pytest.mark.parametrize(
    "traffic",
    [
        pytest.param([{**_OLD, "percent": 100}], id="rollback"),
        pytest.param([{**_OLD, "percent": 20}, {"latestRevision": True, "percent": 80}], id="split"),
    ],
)
def test_traffic_to_an_old_revision_makes_none_and_its_pods_come_back_confidential(
    cluster: ControlPlane, knative: Knative, namespace: Make, traffic: list[dict[str, Any]]
) -> None:
    here = namespace("enforce")
    _two_revisions(cluster, here)
    done = cluster.user("dev").apply(_service(here, *traffic, argument="new"))
    assert [warning for warning in done.warnings if "Knative" not in warning] == []
    assert settled(here, "web")["spec"]["traffic"] == traffic
    assert revisions(here) == ["web-00001", "web-00002"]
    for revision, argument in (("web-00001", "old"), ("web-00002", "new")):
        pod = from_zero(knative, here, revision)
        assert _argument(pod) == argument
        assert pod["spec"]["runtimeClassName"] == "kata-qemu-snp"
        assert [each["name"] for each in pod["spec"]["initContainers"]] == ["morphisms-init"]
        assert pod["spec"]["nodeName"].startswith("snp-")


def test_a_revision_from_before_us_comes_back_confidential(
    cluster: ControlPlane, knative: Knative, namespace: Make
) -> None:
    here = namespace()
    cluster.user("dev").apply(make_service("web", here))
    assert "runtimeClassName" not in pod_of(here, "web")["spec"]
    here.label("enforce")
    pod = from_zero(knative, here, "web-00001")
    assert pod["spec"]["runtimeClassName"] == "kata-qemu-snp"
    assert pod["spec"]["nodeName"].startswith("snp-")
