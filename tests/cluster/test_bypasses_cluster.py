"""Attacks on what stands around a pod: its namespace, our registration, and who may write either."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest

from tests.cluster.attacks import (
    DRY,
    allowed,
    developer,
    garbage_collector,
    is_confidential,
    make_pod,
    mallory,
    reasons,
    try_patch,
    try_pod,
)
from tests.cluster.client import JSON_PATCH, Object
from tests.cluster.controlplane import ControlPlane
from tests.cluster.installation import SYSTEM
from tests.cluster.namespace import MODE_LABEL, Namespace

pytestmark = pytest.mark.usefixtures("morphisms")
Make = Callable[..., Namespace]
_NAMESPACES = "/api/v1/namespaces"
_REGISTRATION = "/apis/admissionregistration.k8s.io/v1"
_KINDS = ("mutatingwebhookconfigurations", "validatingwebhookconfigurations")
# Owned by nobody who exists, it would be collected.
_NOBODY = {"apiVersion": "v1", "kind": "Namespace", "name": "gone", "uid": "00000000-0000-4000-8000-000000000000"}
_RATCHET, _GUARD = {"mode-ratchet.morphisms.dev"}, {"configuration-guard.morphisms.dev"}


@pytest.fixture
def here(namespace: Make) -> Namespace:
    return namespace("enforce")


def _labels(**labels: str | None) -> Object:
    return {"metadata": {"labels": labels}}


# Namespaces.


@pytest.mark.parametrize("mode", [None, "audit", "inject"])
def test_c17_mode_that_is_loosened(cluster: ControlPlane, here: Namespace, mode: str | None) -> None:
    path, change = f"{_NAMESPACES}/{here.name}", {"metadata": {"labels": {MODE_LABEL: mode}}}
    assert reasons(try_patch(mallory(cluster), path, change)) == _RATCHET
    written = cluster.admin.get(path)
    written["metadata"]["labels"].pop(MODE_LABEL)
    for subresource in ("", "/status", "/finalize"):
        answer = mallory(cluster).request("PUT", path + subresource, written, query=DRY)
        assert reasons(answer) == _RATCHET
    allowed(try_patch(mallory(cluster), path, _labels(team="shop")))


@pytest.mark.parametrize("mode", ["Enforce", "none", ""])
def test_c17_mode_that_is_none(cluster: ControlPlane, here: Namespace, mode: str) -> None:
    """Whether typed wrong or written to get rid of the mode: such a namespace counts as enforce, and stays so."""
    path = f"{_NAMESPACES}/{here.name}"
    answer = mallory(cluster).request(
        "PATCH", path, _labels(**{MODE_LABEL: mode}), content_type="application/merge-patch+json"
    )
    assert answer.status == 200
    assert "counts as enforce" in answer.warnings[0]
    assert reasons(try_pod(developer(cluster), here, make_pod(nodeName="plain-0"))) == {"placement/node-name"}
    assert is_confidential(allowed(try_pod(developer(cluster), here, make_pod())))
    assert reasons(try_patch(mallory(cluster), path, _labels(**{MODE_LABEL: None}))) == _RATCHET


def test_c17_who_edits_in_a_namespace_does_not_edit_the_namespace(cluster: ControlPlane, here: Namespace) -> None:
    answer = try_patch(developer(cluster), f"{_NAMESPACES}/{here.name}", _labels(team="shop"))
    assert answer.status == 403
    assert "cannot patch resource" in answer.message


def test_c17_namespace_made_anew_without_its_mode(cluster: ControlPlane, namespace: Make) -> None:
    for mode, refused in (("enforce", True), ("inject", True), ("audit", False), (None, False)):
        path = f"{_NAMESPACES}/{namespace(mode).name}"
        for client in (mallory(cluster), garbage_collector(cluster)):
            answer = client.request("DELETE", path, query=DRY)
            assert reasons(answer) == _RATCHET if refused else answer.status == 200


def test_c17_namespace_that_is_called_like_an_excluded_one(cluster: ControlPlane, here: Namespace) -> None:
    """The name that selectors go by is the API server's own to write."""
    path = f"{_NAMESPACES}/{here.name}"
    key = "kubernetes.io/metadata.name"
    for name in ("kube-system", SYSTEM, None):
        cluster.admin.patch(path, {"metadata": {"labels": {key: name}}})
        assert cluster.admin.get(path)["metadata"]["labels"][key] == here.name
    assert reasons(try_pod(developer(cluster), here, make_pod(nodeName="plain-0"))) == {"placement/node-name"}


def test_c18_labels_that_a_platform_excludes_by(cluster: ControlPlane, namespace: Make) -> None:
    """On AKS an enforcer would leave such namespaces out; our annotation keeps it from it, and no selector does so."""
    labels = {"control-plane": "true", "kubernetes.azure.com/managedby": "aks", "webhooks.knative.dev/exclude": "true"}
    here = namespace("enforce", **labels)
    assert reasons(try_pod(developer(cluster), here, make_pod(nodeName="plain-0"))) == {"placement/node-name"}
    assert is_confidential(allowed(try_pod(developer(cluster), here, make_pod())))
    for kind in _KINDS:
        item = cluster.admin.get(f"{_REGISTRATION}/{kind}/morphisms")
        assert item["metadata"]["annotations"]["admissions.enforcer/disabled"] == "true"
        assert not any("objectSelector" in entry and entry["objectSelector"] for entry in item["webhooks"])


def test_c44_namespaces_that_are_not_looked_at(cluster: ControlPlane) -> None:
    """A pod of ours and the cluster's own start without us: who may create there is for RBAC to say."""
    for name in (SYSTEM, "kube-system", "kube-node-lease"):
        excluded = Namespace(name, cluster.admin)
        answer = try_pod(developer(cluster), excluded, make_pod())
        assert (answer.status, "cannot create resource" in answer.message) == (403, True)
        secret = developer(cluster).request("GET", f"{_NAMESPACES}/{name}/secrets")
        assert secret.status == 403
    selectors = [
        entry.get("namespaceSelector", {}).get("matchExpressions", [{}])[0]
        for kind in _KINDS
        for entry in cluster.admin.get(f"{_REGISTRATION}/{kind}/morphisms")["webhooks"]
    ]
    excluded_by_name = ["morphisms-system", "kube-system", "kube-node-lease"]
    assert all(each["key"] == "kubernetes.io/metadata.name" for each in selectors)
    assert all(each["values"] == excluded_by_name for each in selectors), "nothing else is left out"


# Our registration.


@pytest.mark.parametrize("kind", _KINDS)
def test_c25_registration_that_is_taken_away(cluster: ControlPlane, kind: str) -> None:
    path = f"{_REGISTRATION}/{kind}/morphisms"
    assert reasons(mallory(cluster).request("DELETE", path, query=DRY)) == _GUARD
    assert reasons(mallory(cluster).request("DELETE", f"{_REGISTRATION}/{kind}", query=DRY)) == _GUARD
    assert reasons(garbage_collector(cluster).request("DELETE", path, query=DRY)) == _GUARD
    theirs = copy.deepcopy(_THEIRS[kind])
    allowed(mallory(cluster).request("POST", f"{_REGISTRATION}/{kind}", theirs, query=DRY))


@pytest.mark.parametrize("kind", _KINDS)
@pytest.mark.parametrize(
    "change",
    [
        {"path": "/webhooks/0/failurePolicy", "value": "Ignore"},
        {"path": "/webhooks/0/rules/0/operations", "value": ["DELETE"]},
        {"path": "/webhooks/0/namespaceSelector", "value": {"matchLabels": {"nobody": "x"}}},
        {"path": "/webhooks/0/objectSelector", "value": {"matchLabels": {"nobody": "x"}}},
        {"path": "/webhooks/0/matchConditions", "value": [{"name": "never", "expression": "false"}]},
        {"path": "/webhooks/0/clientConfig/service/name", "value": "mine"},
        {"path": "/webhooks/0/clientConfig/caBundle", "value": ""},
        {"path": "/webhooks", "value": []},
        {"path": "/metadata/annotations", "value": {}},
        {"path": "/metadata/ownerReferences", "value": [_NOBODY]},
    ],
    ids=lambda change: change["path"].rpartition("/")[2],
)
def test_c25_registration_that_is_edited(cluster: ControlPlane, kind: str, change: Object) -> None:
    path = f"{_REGISTRATION}/{kind}/morphisms"
    answer = try_patch(mallory(cluster), path, [{"op": "add", **change}], JSON_PATCH)
    assert reasons(answer) == _GUARD
    allowed(
        try_patch(mallory(cluster), path, [{"op": "test", "path": "/metadata/name", "value": "morphisms"}], JSON_PATCH)
    )


def test_c25_guards_that_are_taken_away(cluster: ControlPlane) -> None:
    """No policy can guard a policy: who may write them is for RBAC to say, and a developer may not."""
    for resource in ("validatingadmissionpolicies", "validatingadmissionpolicybindings"):
        for client, may in ((developer(cluster), False), (mallory(cluster), True)):
            answer = client.request(
                "DELETE", f"{_REGISTRATION}/{resource}/configuration-guard.morphisms.dev", query=DRY
            )
            assert (answer.status == 200) is may


_THEIRS: dict[str, Object] = {
    kind: {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration" if kind.startswith("mutating") else "ValidatingWebhookConfiguration",
        "metadata": {"name": "theirs"},
    }
    for kind in _KINDS
}
