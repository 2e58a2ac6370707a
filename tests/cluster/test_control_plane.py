"""The tier's own ground: a pod is scheduled, etcd and the audit log can be read, and nothing outlives its run."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.cluster.audit import creates
from tests.cluster.client import ApiError
from tests.cluster.controlplane import ControlPlane
from tests.cluster.etcd import holds
from tests.cluster.namespace import Namespace

Make = Callable[..., Namespace]


def _pod(name: str, value: str = "") -> dict[str, object]:
    container = {"name": "app", "image": "registry.example/app", "env": [{"name": "VALUE", "value": value}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": [container]}}


def test_a_pod_is_scheduled_and_found_in_etcd_and_in_the_audit_log(cluster: ControlPlane, namespace: Make) -> None:
    here = namespace()
    mark = cluster.audit.mark()
    cluster.user("dev").create(here.pods(), _pod("hello", "canary-in-the-open"))
    bound = cluster.admin.until(here.pods(), lambda pods: next((p for p in pods if p["spec"].get("nodeName")), None))
    assert bound["spec"]["nodeName"] in {"snp-0", "snp-1", "plain-0"}
    stored = {key for key, value in cluster.etcd.everything() if holds(value, "canary-in-the-open")}
    assert stored == {f"/registry/pods/{here.name}/hello"}
    assert holds(cluster.etcd.value(f"/registry/pods/{here.name}/hello"), "canary-in-the-open")
    assert any(holds(content, "canary-in-the-open") for _, content in cluster.etcd.files())
    event = cluster.audit.until(lambda event: creates(event, "pods", here.name), mark)
    assert event["user"]["username"] == "dev"
    assert event["requestObject"]["spec"]["containers"][0]["env"][0]["value"] == "canary-in-the-open"


def test_each_identity_may_do_its_own(cluster: ControlPlane, namespace: Make) -> None:
    here, other = namespace(), namespace()
    assert cluster.user("dev").can("create", "pods", here.name)
    assert not cluster.user("dev").can("create", "namespaces")
    assert not cluster.user("nobody-of-ours").can("get", "pods", other.name)
    cluster.node("plain-0").patch("/api/v1/nodes/plain-0", {"metadata": {"labels": {"example.org/mine": "1"}}})
    with pytest.raises(ApiError, match="is not allowed to modify node"):
        cluster.node("plain-0").patch("/api/v1/nodes/snp-0", {"metadata": {"labels": {"example.org/mine": "1"}}})
    account = cluster.service_account(here.name, "default")
    assert account.kubectl("auth", "whoami", "-o", "name", check=False).code == 0
    with pytest.raises(ApiError, match=f"system:serviceaccount:{here.name}:default"):
        account.items(here.pods())


def test_the_api_server_can_be_restarted(cluster: ControlPlane, namespace: Make) -> None:
    here = namespace()
    cluster.processes["kube-apiserver"].restart()
    cluster.user("dev").create(here.pods(), _pod("after"))
    assert cluster.admin.get(here.pods("after"))["spec"]["containers"]
