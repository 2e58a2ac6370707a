"""What the tests of bypasses share: pods that try something, who tries it, and why it was refused."""

from __future__ import annotations

import functools
import re
from typing import Any

from tests.cluster.client import Answer, Client, Object
from tests.cluster.controlplane import ControlPlane
from tests.cluster.namespace import DEVELOPER, Namespace
from tests.support.until import until

DRY = {"dryRun": "All"}
IMAGE = f"dev.local/app@sha256:{'b' * 64}"
OTHER_IMAGE = f"dev.local/other@sha256:{'c' * 64}"
SIDECAR = f"registry.example/morphisms/sidecar@sha256:{'5' * 64}"
"""What some tests have the configuration name. For a moment after them, pods are given it still."""
SECRET = {"morphisms.dev/secret-db": "secret/shop/db#password"}
KNATIVE_LABELS = {"serving.knative.dev/service": "payments"}
# Pods that stay where they are, so that they can be changed: not looked at by the scheduler, or finding no node.
GATED: Object = {"schedulingGates": [{"name": "example.org/wait"}]}
UNSCHEDULABLE: Object = {"nodeSelector": {"example.org/nowhere": "true"}}

_RULE = re.compile(r"\[([a-z]+/[a-z-]+)\]")
_POLICY = re.compile(r"ValidatingAdmissionPolicy '([^']+)'")
_EVERYTHING = ["", "apps", "batch", "node.k8s.io", "admissionregistration.k8s.io", "serving.knative.dev"]


def make_pod(
    name: str = "attack",
    *,
    annotations: dict[str, str] | None = None,
    labels: dict[str, str] | None = None,
    container: Object | None = None,
    **spec: Any,
) -> Object:
    """A pod that no rule objects to, but for what is given."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "annotations": annotations or {}, "labels": labels or {}},
        "spec": {"containers": [{"name": "app", "image": IMAGE, **(container or {})}], **spec},
    }


def try_pod(client: Client, here: Namespace, pod: Object) -> Answer:
    """What creating it would be answered: nothing is kept."""
    return client.request("POST", here.pods(), pod, query=DRY)


def try_patch(client: Client, path: str, body: Any, content_type: str = "application/merge-patch+json") -> Answer:
    """What that change would be answered."""
    return client.request("PATCH", path, body, content_type=content_type, query=DRY)


def binding(pod: str, node: str, **metadata: Any) -> Object:
    """As the scheduler posts it."""
    target = {"apiVersion": "v1", "kind": "Node", "name": node}
    return {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": pod, **metadata}, "target": target}


def reasons(answer: Answer) -> set[str]:
    """The rules and policies that a refusal names; one that names none is none of ours."""
    assert answer.status == 403, (answer.status, answer.message)
    return set(_RULE.findall(answer.message)) | set(_POLICY.findall(answer.message))


def until_refused(client: Client, here: Namespace, pod: Object, rules: set[str]) -> None:
    """Return when it is refused for these rules: each replica, and the API server, sees what has changed by itself."""

    def is_refused() -> bool:
        answer = try_pod(client, here, pod)
        return answer.status == 403 and reasons(answer) == rules

    until(is_refused)


def allowed(answer: Answer) -> Object:
    """The object as it was admitted."""
    assert answer.status in (200, 201), (answer.status, answer.message)
    return answer.body


def is_confidential(pod: Object) -> bool:
    """Whether a pod has all that injection gives."""
    spec = pod["spec"]
    required = "requiredDuringSchedulingIgnoredDuringExecution"
    terms = spec.get("affinity", {}).get("nodeAffinity", {}).get(required, {}).get("nodeSelectorTerms", [])
    keys = [{each["key"] for each in term.get("matchExpressions", ())} for term in terms]
    containers = {(each["name"], each["image"]) for each in spec.get("initContainers", ())}
    return (
        spec.get("runtimeClassName") == "kata-qemu-snp"
        and bool(keys)
        and all("amd.feature.node.kubernetes.io/snp" in each for each in keys)
        and bool(containers & {("morphisms-init", image) for image in ("morphisms/sidecar:0.1.0", SIDECAR)})
        and '"injector":' in pod["metadata"]["annotations"].get("morphisms.dev/status", "")
    )


def developer(cluster: ControlPlane) -> Client:
    """Has the role `edit` in each test's namespace."""
    return cluster.user(DEVELOPER)


def garbage_collector(cluster: ControlPlane) -> Client:
    """Deletes what says that its owner is gone, whoever wrote that."""
    return cluster.user("system:serviceaccount:kube-system:generic-garbage-collector")


@functools.cache
def mallory(cluster: ControlPlane) -> Client:
    """May do everything in the groups at stake, in all namespaces; has neither `loosen` nor `break-glass`."""
    rbac = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": "test-mallory"}}
    rules = [{"apiGroups": _EVERYTHING, "resources": ["*"], "verbs": ["*"]}]
    cluster.admin.apply(
        {**rbac, "kind": "ClusterRole", "rules": rules},
        {
            **rbac,
            "kind": "ClusterRoleBinding",
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "test-mallory"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "mallory"}],
        },
    )
    client = cluster.user("mallory")
    until(lambda: client.can("delete", "runtimeclasses", group="node.k8s.io"))
    assert not client.can("break-glass", "guards", group="morphisms.dev")
    return client
