"""Waiting until the API server acts by what was written: it does so by copies of its own, and says so nowhere.

Its copy of each kind of object takes up writes in their order. So once it acts by markers that were written last, it
acts by all that was written before them.
"""

from __future__ import annotations

import re
import uuid
from typing import Final

from tests.cluster.client import Client, Object
from tests.cluster.policies import wait_for_policies
from tests.support.until import until

_NAMESPACES: Final = "/api/v1/namespaces"
_RBAC: Final = "rbac.authorization.k8s.io"
_REGISTRATION: Final = "/apis/admissionregistration.k8s.io"
_WITNESS: Final = "namespace-seen.example.org"
_SEEN: Final = re.compile(r"the namespace is seen at (\d+)")


def wait_for_roles(admin: Client) -> None:
    """Return when the API server authorises by every role and binding written so far."""
    name = f"marker-{uuid.uuid4().hex}"
    user = [{"apiGroup": _RBAC, "kind": "User", "name": name}]
    objects: list[Object] = []
    for kind, resource, place in (("ClusterRole", "pods", {}), ("Role", "secrets", {"namespace": "default"})):
        rules = [{"apiGroups": [""], "resources": [resource], "verbs": ["get"]}]
        head: Object = {"apiVersion": f"{_RBAC}/v1", "metadata": {"name": name, **place}}
        reference = {"apiGroup": _RBAC, "kind": kind, "name": name}
        objects.append({**head, "kind": kind, "rules": rules})
        objects.append({**head, "kind": f"{kind}Binding", "roleRef": reference, "subjects": user})
    try:
        for each in objects:
            admin.create(_rbac_path(each), each)
        until(lambda: _may_get(admin, name, "pods", "") and _may_get(admin, name, "secrets", "default"))
    finally:
        for each in reversed(objects):
            admin.request("DELETE", f"{_rbac_path(each)}/{name}")


def _rbac_path(item: Object) -> str:
    namespace = item["metadata"].get("namespace")
    return f"/apis/{_RBAC}/v1/{f'namespaces/{namespace}/' if namespace else ''}{item['kind'].lower()}s"


def _may_get(admin: Client, user: str, resource: str, namespace: str) -> bool:
    attributes = {"verb": "get", "resource": resource, "namespace": namespace}
    review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview"}
    spec = {"user": user, "resourceAttributes": attributes}
    answer = admin.create("/apis/authorization.k8s.io/v1/subjectaccessreviews", {**review, "spec": spec})
    return bool(answer["status"]["allowed"])


def wait_for_webhooks(admin: Client) -> None:
    """Return when the API server calls webhooks by every configuration written so far."""
    name = f"marker-{uuid.uuid4().hex}"
    for kind in ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"):
        path = f"{_REGISTRATION}/v1/{kind.lower()}s"
        admin.create(path, _nobody_answers(kind, name))
        try:
            until(lambda: f'failed calling webhook "{name}.example.org"' in _try(admin, "default", name))
        finally:
            admin.delete(f"{path}/{name}")


def _nobody_answers(kind: str, name: str) -> Object:
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}
    entry = {
        "name": f"{name}.example.org",
        "clientConfig": {"url": "https://127.0.0.1:1/"},
        "rules": [rule],
        "matchConditions": [{"name": "marker", "expression": f"object.metadata.name == '{name}'"}],
        "failurePolicy": "Fail",
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
    }
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": kind,
        "metadata": {"name": name},
        "webhooks": [entry],
    }


def wait_for_namespace(admin: Client, name: str) -> None:
    """Return when admission judges by the namespace's labels as they are now."""
    _provide_witness(admin)
    wanted = int(admin.get(f"{_NAMESPACES}/{name}")["metadata"]["resourceVersion"])

    def is_seen() -> bool:
        seen = _SEEN.search(_try(admin, name, _WITNESS))
        return seen is not None and int(seen[1]) >= wanted

    until(is_seen)


def _try(admin: Client, namespace: str, name: str) -> str:
    """What the API server says of a ConfigMap of that name, of which nothing is kept."""
    item = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}
    return admin.request("POST", f"{_NAMESPACES}/{namespace}/configmaps", item, query={"dryRun": "All"}).message


def _provide_witness(admin: Client) -> None:
    """A policy that refuses one ConfigMap, and says by which version of its namespace."""
    api = {"apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": _WITNESS}}
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}
    says = "'the namespace is seen at ' + string(namespaceObject.metadata.resourceVersion)"
    policy = {
        "failurePolicy": "Fail",
        "matchConstraints": {"resourceRules": [{**rule, "resourceNames": [_WITNESS]}]},
        "validations": [{"expression": "false", "messageExpression": says}],
    }
    binding = {"policyName": _WITNESS, "validationActions": ["Deny"]}
    path = f"{_REGISTRATION}/v1/validatingadmissionpolicies"
    if admin.request("GET", f"{path}/{_WITNESS}").status == 200:
        return
    admin.create(path, {**api, "kind": "ValidatingAdmissionPolicy", "spec": policy})
    admin.create(
        f"{path.removesuffix('ies')}ybindings", {**api, "kind": "ValidatingAdmissionPolicyBinding", "spec": binding}
    )
    wait_for_policies(admin)
