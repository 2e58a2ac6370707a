"""A namespace of one test."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass

from tests.cluster.caught_up import wait_for_namespace
from tests.cluster.client import Client, Object
from tests.support.until import until

MODE_LABEL = "morphisms.dev/mode"
DEVELOPER = "dev"


@dataclass(frozen=True)
class Namespace:
    """`name`, and API paths in it."""

    name: str
    admin: Client

    @staticmethod
    def make(admin: Client, mode: str | None, labels: Mapping[str, str]) -> Namespace:
        """Make one in which the developer may edit, and wait until pods can be made in it."""
        name = f"test-{uuid.uuid4().hex[:8]}"
        own = {MODE_LABEL: mode} if mode is not None else {}
        admin.create(
            "/api/v1/namespaces",
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {**own, **labels}}},
        )
        admin.create(
            f"/apis/rbac.authorization.k8s.io/v1/namespaces/{name}/rolebindings",
            {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "RoleBinding",
                "metadata": {"name": "developer"},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"},
                "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": DEVELOPER}],
            },
        )
        # The API server authorises by a copy of its own.
        until(lambda: _may_edit(admin, name))
        namespace = Namespace(name, admin)
        # The controller manager makes it; no pod is admitted before.
        admin.until(namespace.path("serviceaccounts"), bool)
        return namespace

    def path(self, resource: str, name: str = "", *, group: str = "v1") -> str:
        """The API path of a collection or an object; `group` is GROUP/VERSION, `v1` for the core."""
        root = "/api/v1" if group == "v1" else f"/apis/{group}"
        return f"{root}/namespaces/{self.name}/{resource}" + (f"/{name}" if name else "")

    def pods(self, name: str = "") -> str:
        return self.path("pods", name)

    def services(self, name: str = "") -> str:
        """Knative's."""
        return self.path("services", name, group="serving.knative.dev/v1")

    def revisions(self, name: str = "") -> str:
        return self.path("revisions", name, group="serving.knative.dev/v1")

    def deployments(self, name: str = "") -> str:
        return self.path("deployments", name, group="apps/v1")

    def label(self, mode: str | None, client: Client | None = None) -> Object:
        """Change the mode, until admission judges by it; None takes the label away."""
        body = {"metadata": {"labels": {MODE_LABEL: mode}}}
        changed = (client or self.admin).patch(f"/api/v1/namespaces/{self.name}", body)
        self.wait_until_seen()
        return changed

    def wait_until_seen(self) -> None:
        """Until admission judges by the labels as they are now."""
        wait_for_namespace(self.admin, self.name)

    def delete(self) -> None:
        """Begin its deletion. It never ends where pods are bound: that takes their kubelet's word."""
        self.admin.request("DELETE", f"/api/v1/namespaces/{self.name}")


def _may_edit(admin: Client, namespace: str) -> bool:
    attributes = {"verb": "create", "resource": "pods", "namespace": namespace}
    review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview"}
    answer = admin.create(
        "/apis/authorization.k8s.io/v1/subjectaccessreviews",
        {**review, "spec": {"user": DEVELOPER, "resourceAttributes": attributes}},
    )
    return bool(answer["status"]["allowed"])
