"""Knative as the tier runs it: from a Service to a pod on a node, each step by its own identity."""

from __future__ import annotations

from collections.abc import Callable

from tests.cluster.audit import creates
from tests.cluster.controlplane import ControlPlane
from tests.cluster.knative import Knative, make_service, pod_of
from tests.cluster.namespace import Namespace


def test_a_service_becomes_a_pod_on_a_node(
    cluster: ControlPlane, knative: Knative, namespace: Callable[..., Namespace]
) -> None:
    here = namespace()
    mark = cluster.audit.mark()
    cluster.user("dev").apply(make_service("hello", here))
    pod = pod_of(here, "hello")
    assert [container["name"] for container in pod["spec"]["containers"]] == ["user-container", "queue-proxy"]
    assert pod["metadata"]["labels"]["serving.knative.dev/service"] == "hello"

    def maker(resource: str) -> str:
        event = cluster.audit.until(lambda event: creates(event, resource, here.name), mark)
        return str(event["user"]["username"])

    assert maker("services") == "dev"
    assert maker("revisions") == "system:serviceaccount:knative-serving:controller"
    assert maker("replicasets") == "system:serviceaccount:kube-system:deployment-controller"
    assert maker("pods") == "system:serviceaccount:kube-system:replicaset-controller"
