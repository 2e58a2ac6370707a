"""A control plane with the guards alone: no webhook of ours is there, and nobody answers for it.

`mallory` may do everything that RBAC knows but for the verbs `loosen` and `break-glass`; `boss` has these too.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from tests.cluster.client import Client, Object
from tests.cluster.controlplane import ControlPlane, control_plane
from tests.cluster.policies import wait_for_policies
from tests.manifests.rendering import MANIFESTS, rendered
from tests.support.until import until

RBAC: Final = "rbac.authorization.k8s.io"
NAMESPACES: Final = "/api/v1/namespaces"
CLASSES: Final = "/apis/node.k8s.io/v1/runtimeclasses"
KNATIVE: Final = "system:serviceaccount:knative-serving:controller"
OURS: Final = "system:serviceaccount:morphisms-system:morphisms-webhook"
SCANNER: Final = "system:serviceaccount:morphisms-system:morphisms-scanner"
_WRITE: Final = ["get", "list", "create", "update", "patch", "delete", "deletecollection"]
_GROUPS: Final = ["", "apps", "batch", "node.k8s.io", "admissionregistration.k8s.io"]


@contextmanager
def guards_alone() -> Iterator[ControlPlane]:
    """A running one, all guards in force."""
    with control_plane("policies") as cluster:
        cluster.kubectl("apply", "--server-side", "-k", MANIFESTS / "base" / "guards")
        cluster.kubectl("apply", "--server-side", "-k", MANIFESTS / "components" / "cluster-guards")
        cluster.kubectl("apply", "--server-side", "-f", MANIFESTS / "overlays" / "enforce" / "mode-required.yaml")
        rules = [{"apiGroups": _GROUPS, "resources": ["*"], "verbs": _WRITE}]
        cluster.admin.apply(
            {"apiVersion": f"{RBAC}/v1", "kind": "ClusterRole", "metadata": {"name": "everything"}, "rules": rules}
        )
        cluster.admin.create(CLASSES, runtime_class("kata-qemu-snp", "kata-qemu-snp"))
        cluster.admin.create(CLASSES, runtime_class("runc", "runc"))
        cluster.admin.create(NAMESPACES, new_namespace("morphisms-system", None))
        bind(cluster.admin, "everything", "mallory", "boss", OURS, SCANNER, KNATIVE)
        bind(cluster.admin, "morphisms-loosen", "boss")
        bind(cluster.admin, "morphisms-break-glass", "boss")
        _register(cluster.admin)
        # Roles and policies are taken up some time after they were written; the last binding is seen last.
        until(lambda: cluster.user("mallory").can("create", "pods"))
        until(lambda: cluster.user("boss").can("break-glass", "guards", group="morphisms.dev"))
        wait_for_policies(cluster.admin)
        yield cluster


def bind(admin: Client, role: str, *users: str, namespace: str = "") -> None:
    """Give the users a ClusterRole, in all namespaces or in one."""
    admin.apply(
        {
            "apiVersion": f"{RBAC}/v1",
            "kind": "RoleBinding" if namespace else "ClusterRoleBinding",
            "metadata": {"name": f"test-{role}", **({"namespace": namespace} if namespace else {})},
            "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": RBAC, "kind": "User", "name": user} for user in users],
        }
    )


def runtime_class(name: str, handler: str, **more: object) -> Object:
    """A RuntimeClass."""
    kind = {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": name}}
    return {**kind, "handler": handler, **more}


def new_namespace(name: str, mode: str | None) -> Object:
    """A Namespace of that mode."""
    labels = {"morphisms.dev/mode": mode} if mode is not None else {}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def _register(admin: Client) -> None:
    """Our own registration, but for resources that do not exist: nobody is there to answer."""
    for kind in ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"):
        item = next(copy.deepcopy(each) for each in rendered("install.yaml") if each["kind"] == kind)
        for webhook in item["webhooks"]:
            for rule in webhook["rules"]:
                rule["apiGroups"] = ["nobody.example"]
        admin.apply(item)
