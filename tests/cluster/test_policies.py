"""The companion policies, in an API server that has no webhook of ours: what each allows and refuses, and to whom.

`mallory` may do everything that RBAC knows but for the verbs `loosen` and `break-glass`; `boss` has these too.
"""

from __future__ import annotations

import base64
import copy
import time
import uuid
from collections.abc import Callable, Iterator

import pytest

from tests.cluster.asking import INJECTED, PODS, STATUS, make_pod
from tests.cluster.client import JSON_PATCH, Answer, Client, Object
from tests.cluster.controlplane import ControlPlane, control_plane
from tests.manifests.rendering import MANIFESTS, rendered
from webhook.configuration.model import Configuration
from webhook.modes import Mode, mode_of_label
from webhook.pod.opt_in import requests_injection
from webhook.pod.pod import Pod

_RBAC = "rbac.authorization.k8s.io"
_NAMESPACES = "/api/v1/namespaces"
_MUTATING = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
_CLASSES = "/apis/node.k8s.io/v1/runtimeclasses"
_KNATIVE = "system:serviceaccount:knative-serving:controller"
_OURS = "system:serviceaccount:morphisms-system:morphisms-webhook"
_WRITE = ["get", "list", "create", "update", "patch", "delete", "deletecollection"]
_GROUPS = ["", "apps", "batch", "node.k8s.io", "admissionregistration.k8s.io"]
_DRY = {"dryRun": "All"}


@pytest.fixture(scope="module")
def guarded(_programs: None) -> Iterator[ControlPlane]:
    """A control plane of its own with the guards alone, all of them in force."""
    with control_plane("policies") as cluster:
        cluster.kubectl("apply", "--server-side", "-k", MANIFESTS / "base" / "guards")
        cluster.kubectl("apply", "--server-side", "-f", MANIFESTS / "overlays" / "enforce" / "mode-required.yaml")
        rules = [{"apiGroups": _GROUPS, "resources": ["*"], "verbs": _WRITE}]
        cluster.admin.apply(
            {"apiVersion": f"{_RBAC}/v1", "kind": "ClusterRole", "metadata": {"name": "everything"}, "rules": rules}
        )
        _bind(cluster.admin, "everything", "mallory", "boss", _OURS, _KNATIVE)
        _bind(cluster.admin, "morphisms-loosen", "boss")
        _bind(cluster.admin, "morphisms-break-glass", "boss")
        _register(cluster.admin)
        _wait_until_in_force(cluster)
        yield cluster


def _bind(admin: Client, role: str, *users: str, namespace: str = "") -> None:
    admin.apply(
        {
            "apiVersion": f"{_RBAC}/v1",
            "kind": "RoleBinding" if namespace else "ClusterRoleBinding",
            "metadata": {"name": f"test-{role}", **({"namespace": namespace} if namespace else {})},
            "roleRef": {"apiGroup": _RBAC, "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": _RBAC, "kind": "User", "name": user} for user in users],
        }
    )


def _register(admin: Client) -> None:
    """Our own registration, but for resources that do not exist: nobody is there to answer."""
    for kind in ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"):
        item = next(copy.deepcopy(each) for each in rendered("install.yaml") if each["kind"] == kind)
        for webhook in item["webhooks"]:
            for rule in webhook["rules"]:
                rule["apiGroups"] = ["nobody.example"]
        admin.apply(item)


def _wait_until_in_force(cluster: ControlPlane) -> None:
    """The API server takes a policy up some time after it was written, and tells nobody: each is tried until then."""
    mallory = cluster.user("mallory")
    enforced, absent = _namespace(cluster, "enforce"), _namespace(cluster, None)
    trials: dict[str, Callable[[], Answer]] = {
        "mode-ratchet": lambda: _label(mallory, enforced, "audit"),
        "configuration-guard": lambda: mallory.request("DELETE", f"{_MUTATING}/morphisms", query=_DRY),
        "runtime-class-guard": lambda: _create(mallory, _CLASSES, _runtime_class("kata-remote", "runc")),
        "injection-present": lambda: _create(mallory, f"{_NAMESPACES}/{enforced}/pods", make_pod()),
        "knative-labels": lambda: _create_workload(mallory, absent, "Deployment", _FORGED),
        "mode-required": lambda: _create(mallory, _NAMESPACES, _new_namespace("shop", "audit")),
    }
    deadline = time.monotonic() + 60
    for policy, trial in trials.items():
        while not _refused(trial(), policy):
            assert time.monotonic() < deadline, f"{policy} refuses nothing"
            time.sleep(0.1)


def _refused(answer: Answer, policy: str) -> bool:
    """Whether the policy said no; any other refusal is a mistake of the test."""
    if answer.status < 400:
        return False
    assert f"ValidatingAdmissionPolicy '{policy}.morphisms.dev'" in answer.message, answer
    assert answer.status == 403
    return True


def _create(client: Client, path: str, item: Object) -> Answer:
    return client.request("POST", path, item, query=_DRY)


def _patch(client: Client, path: str, body: object, content_type: str = "application/merge-patch+json") -> Answer:
    return client.request("PATCH", path, body, content_type=content_type, query=_DRY)


def _namespace(cluster: ControlPlane, mode: str | None) -> str:
    name = f"test-{uuid.uuid4().hex[:8]}"
    labels = {"morphisms.dev/mode": mode} if mode is not None else {}
    metadata = {"name": name, "labels": labels}
    cluster.admin.create(_NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    cluster.admin.until(f"{_NAMESPACES}/{name}/serviceaccounts", bool)
    return name


def _label(client: Client, namespace: str, mode: str | None, subresource: str = "") -> Answer:
    return _patch(
        client, f"{_NAMESPACES}/{namespace}{subresource}", {"metadata": {"labels": {"morphisms.dev/mode": mode}}}
    )


# The mode's ratchet.


@pytest.mark.parametrize(
    ("old", "new", "loosens"),
    [
        (None, "audit", False),
        (None, "enforce", False),
        (None, "mistyped", False),
        ("mistyped", None, True),
        ("mistyped", "inject", True),
        ("mistyped", "enforce", False),
        ("audit", "mistyped", False),
        ("audit", "inject", False),
        ("inject", "enforce", False),
        ("enforce", "enforce", False),
        ("audit", None, True),
        ("inject", "audit", True),
        ("enforce", "inject", True),
        ("enforce", None, True),
        # What is not a mode counts as enforce.
        ("enforce", "", False),
        ("enforce", "Enforce", False),
        ("enforce", "mistyped", False),
        ("", None, True),
    ],
)
def test_a_mode_is_tightened_by_anybody_and_loosened_with_the_verb(
    guarded: ControlPlane, old: str | None, new: str | None, loosens: bool
) -> None:
    namespace = _namespace(guarded, old)
    assert _refused(_label(guarded.user("mallory"), namespace, new), "mode-ratchet") is loosens
    assert not _refused(_label(guarded.user("boss"), namespace, new), "mode-ratchet")


@pytest.mark.parametrize("subresource", ["/status", "/finalize"])
def test_a_subresource_is_no_way_around_the_ratchet(guarded: ControlPlane, subresource: str) -> None:
    namespace = _namespace(guarded, "enforce")
    item = guarded.admin.get(f"{_NAMESPACES}/{namespace}")
    del item["metadata"]["labels"]["morphisms.dev/mode"]
    path = f"{_NAMESPACES}/{namespace}{subresource}"
    assert _refused(guarded.user("mallory").request("PUT", path, item, query=_DRY), "mode-ratchet")
    assert not _refused(guarded.user("boss").request("PUT", path, item, query=_DRY), "mode-ratchet")


def test_the_verb_in_one_namespace_is_none_in_another(guarded: ControlPlane) -> None:
    mine, other = _namespace(guarded, "enforce"), _namespace(guarded, "enforce")
    _bind(guarded.admin, "morphisms-loosen", "mallory", namespace=mine)
    deadline = time.monotonic() + 30
    while _refused(_label(guarded.user("mallory"), mine, None), "mode-ratchet"):  # RBAC is told a little later
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert _refused(_label(guarded.user("mallory"), other, None), "mode-ratchet")


@pytest.mark.parametrize(
    ("mode", "refused"), [(None, False), ("audit", False), ("inject", True), ("enforce", True), ("mistyped", True)]
)
def test_a_namespace_is_not_made_anew_without_its_mode(guarded: ControlPlane, mode: str | None, refused: bool) -> None:
    path = f"{_NAMESPACES}/{_namespace(guarded, mode)}"
    assert _refused(guarded.user("mallory").request("DELETE", path, query=_DRY), "mode-ratchet") is refused
    assert not _refused(guarded.user("boss").request("DELETE", path, query=_DRY), "mode-ratchet")


def test_what_is_no_mode_changes_freely(guarded: ControlPlane) -> None:
    namespace = _namespace(guarded, "enforce")
    labels = {"metadata": {"labels": {"team": "shop"}, "annotations": {"note": "x"}}}
    assert _patch(guarded.user("mallory"), f"{_NAMESPACES}/{namespace}", labels).status == 200


def _new_namespace(name: str, mode: str | None) -> Object:
    labels = {"morphisms.dev/mode": mode} if mode is not None else {}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


@pytest.mark.parametrize(
    ("name", "mode", "refused"),
    [("shop", None, True), ("shop", "inject", True), ("shop", "enforce", False), ("knative-serving", None, False)],
)
def test_with_the_overlay_enforce_namespaces_begin_there(
    guarded: ControlPlane, name: str, mode: str | None, refused: bool
) -> None:
    item = _new_namespace(name, mode)
    assert _refused(_create(guarded.user("mallory"), _NAMESPACES, item), "mode-required") is refused
    assert _create(guarded.user("boss"), _NAMESPACES, item).status == 201


# Our webhook configurations.

_BUNDLE = base64.b64encode(b"-----BEGIN CERTIFICATE-----\n").decode()
_SET_BUNDLE = [{"op": "add", "path": "/webhooks/1/clientConfig/caBundle", "value": _BUNDLE}]


@pytest.mark.parametrize("kind", ["mutatingwebhookconfigurations", "validatingwebhookconfigurations"])
def test_our_account_writes_the_bundle_and_nobody_else_does(guarded: ControlPlane, kind: str) -> None:
    path = f"/apis/admissionregistration.k8s.io/v1/{kind}/morphisms"
    for user, refused in ((_OURS, False), ("mallory", True), ("boss", False)):
        answer = _patch(guarded.user(user), path, _SET_BUNDLE, JSON_PATCH)
        assert _refused(answer, "configuration-guard") is refused, user


@pytest.mark.parametrize(
    "change",
    [
        [{"op": "replace", "path": "/webhooks/0/failurePolicy", "value": "Ignore"}],
        [{"op": "replace", "path": "/webhooks/0/timeoutSeconds", "value": 1}],
        [{"op": "replace", "path": "/webhooks/0/name", "value": "renamed.morphisms.dev"}],
        [{"op": "replace", "path": "/webhooks/0/clientConfig/service/path", "value": "/healthz"}],
        [{"op": "replace", "path": "/webhooks/0/clientConfig/service/namespace", "value": "default"}],
        [{"op": "remove", "path": "/webhooks/1"}],
        [{"op": "remove", "path": "/webhooks"}],
        [{"op": "add", "path": "/webhooks/1/objectSelector", "value": {"matchLabels": {"opted": "in"}}}],
        [{"op": "remove", "path": "/webhooks/1/matchConditions"}],
        [{"op": "add", "path": "/webhooks/0/matchConditions", "value": [{"name": "never", "expression": "false"}]}],
        [{"op": "replace", "path": "/webhooks/0/namespaceSelector", "value": {"matchLabels": {"opted": "in"}}}],
        [{"op": "add", "path": "/webhooks/0/rules/0/operations", "value": ["DELETE"]}],
        [{"op": "move", "from": "/webhooks/0", "path": "/webhooks/1"}],
        [{"op": "add", "path": "/metadata/labels/mine", "value": "now"}],
        [{"op": "remove", "path": "/metadata/annotations"}],
        [{"op": "add", "path": "/metadata/finalizers", "value": ["example.org/stay"]}],
    ],
    ids=lambda change: f"{change[0]['op']}-{change[0]['path'].replace('/', '-')}",
)
def test_nothing_but_the_bundle_changes(guarded: ControlPlane, change: list[Object]) -> None:
    path = f"{_MUTATING}/morphisms"
    for user in (_OURS, "mallory"):
        for patch in (change, [*_SET_BUNDLE, *change]):
            assert _refused(_patch(guarded.user(user), path, patch, JSON_PATCH), "configuration-guard"), user
    assert not _refused(_patch(guarded.user("boss"), path, change, JSON_PATCH), "configuration-guard")


def test_our_configurations_stay_and_others_are_none_of_our_business(guarded: ControlPlane) -> None:
    mallory, path = guarded.user("mallory"), f"{_MUTATING}/morphisms"
    other = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration"}
    assert _refused(mallory.request("DELETE", path, query=_DRY), "configuration-guard")
    assert _refused(mallory.request("DELETE", _MUTATING, query=_DRY), "configuration-guard")
    assert _refused(_create(mallory, _MUTATING, {**other, "metadata": {"name": "morphisms"}}), "configuration-guard")
    assert _refused(guarded.user(_OURS).request("DELETE", path, query=_DRY), "configuration-guard")
    assert _create(mallory, _MUTATING, {**other, "metadata": {"name": "theirs"}}).status == 201


def test_writing_what_is_there_already_changes_nothing(guarded: ControlPlane) -> None:
    item = guarded.admin.get(f"{_MUTATING}/morphisms")
    assert guarded.user("mallory").request("PUT", f"{_MUTATING}/morphisms", item, query=_DRY).status == 200


# RuntimeClasses of the profiles.


def _runtime_class(name: str, handler: str, **more: object) -> Object:
    kind = {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": name}}
    return {**kind, "handler": handler, **more}


def test_a_profiles_runtime_class_keeps_what_it_does(guarded: ControlPlane) -> None:
    scheduling = {"nodeSelector": {"amd.feature.node.kubernetes.io/snp": "true"}}
    guarded.admin.create(_CLASSES, _runtime_class("kata-qemu-snp", "kata-qemu-snp", scheduling=scheduling))
    path, mallory = f"{_CLASSES}/kata-qemu-snp", guarded.user("mallory")
    refused: list[Object] = [
        {"scheduling": None},
        {"scheduling": {"nodeSelector": {"amd.feature.node.kubernetes.io/snp": "false"}}},
        {"overhead": {"podFixed": {"memory": "1Mi"}}},
    ]
    for change in refused:
        assert _refused(_patch(mallory, path, change), "runtime-class-guard"), change
        assert not _refused(_patch(guarded.user("boss"), path, change), "runtime-class-guard"), change
    assert _patch(mallory, path, {"metadata": {"labels": {"note": "x"}}}).status == 200
    assert _refused(mallory.request("DELETE", path, query=_DRY), "runtime-class-guard")
    assert _refused(mallory.request("DELETE", _CLASSES, query=_DRY), "runtime-class-guard")
    assert guarded.user("boss").request("DELETE", path, query=_DRY).status == 200


@pytest.mark.parametrize(
    ("name", "handler", "refused"),
    [
        ("kata-remote", "kata-remote", False),
        ("kata-remote", "runc", True),
        ("kata-remote", "kata-qemu-snp", True),
        ("gvisor", "runsc", False),
    ],
)
def test_a_profiles_runtime_class_is_made_with_its_handler_only(
    guarded: ControlPlane, name: str, handler: str, refused: bool
) -> None:
    item = _runtime_class(name, handler)
    assert _refused(_create(guarded.user("mallory"), _CLASSES, item), "runtime-class-guard") is refused
    assert _create(guarded.user("boss"), _CLASSES, item).status == 201


# A pod that asks for injection has it.


@pytest.mark.parametrize("mode", [None, "mistyped", "audit", "inject", "enforce"])
def test_a_pod_that_asks_waits_for_injection_as_the_webhook_reads_it(guarded: ControlPlane, mode: str | None) -> None:
    namespace = _namespace(guarded, mode)
    for name, pod in PODS.items():
        opted_in = mode_of_label(mode) is Mode.ENFORCE or requests_injection(
            Pod(pod, namespace, Configuration()), mode_of_label(mode)
        )
        answer = _create(guarded.user("mallory"), f"{_NAMESPACES}/{namespace}/pods", pod)
        assert _refused(answer, "injection-present") is opted_in, name


@pytest.mark.parametrize("mode", [None, "audit", "inject", "enforce"])
def test_an_injected_pod_is_let_through(guarded: ControlPlane, mode: str | None) -> None:
    path = f"{_NAMESPACES}/{_namespace(guarded, mode)}/pods"
    told, measured = {"morphisms.dev/inject": "true"}, {"io.katacontainers.config.hypervisor.cc_init_data": "x"}
    secret = {"morphisms.dev/secret-db": "secret/shop/db"}
    for own, init in (
        (STATUS | told, [INJECTED]),
        (STATUS | told | secret, [INJECTED]),
        (STATUS | told | secret | measured, [INJECTED]),
        (STATUS | told, []),  # a profile without evidence is placement only
    ):
        assert _create(guarded.user("mallory"), path, make_pod(own, init=init)).status == 201
    for own, init in ((told | secret, [INJECTED]), (STATUS | told | secret, []), (measured | told, [])):
        assert _refused(_create(guarded.user("mallory"), path, make_pod(own, init=init)), "injection-present")


def test_who_is_exempt_and_who_says_so_only(guarded: ControlPlane) -> None:
    path = f"{_NAMESPACES}/{_namespace(guarded, 'enforce')}/pods"
    assert _create(guarded.user(_KNATIVE), path, make_pod()).status == 201
    assert _refused(guarded.user(_KNATIVE).request("POST", path, make_pod()), "injection-present")
    mirror = make_pod(
        {"kubernetes.io/config.mirror": "x", "kubernetes.io/config.source": "file"}, more={"nodeName": "n1"}
    )
    assert _refused(_create(guarded.user("mallory"), path, mirror), "injection-present")
    guarded.admin.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}})
    uid = guarded.admin.get("/api/v1/nodes/n1")["metadata"]["uid"]
    owner = {"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": uid, "controller": True}
    mirror["metadata"]["ownerReferences"] = [owner]
    assert _create(guarded.node("n1"), path, mirror).status == 201


def test_a_running_pod_is_changed_and_deleted_freely(guarded: ControlPlane) -> None:
    namespace = _namespace(guarded, None)
    pod = make_pod({"morphisms.dev/secret-db": "secret/shop/db"})
    pod["metadata"] = {"name": "old", "annotations": pod["metadata"]["annotations"], "finalizers": ["example.org/x"]}
    path = f"{_NAMESPACES}/{namespace}/pods/old"
    guarded.admin.create(f"{_NAMESPACES}/{namespace}/pods", pod)
    guarded.admin.patch(f"{_NAMESPACES}/{namespace}", {"metadata": {"labels": {"morphisms.dev/mode": "enforce"}}})
    mallory = guarded.user("mallory")
    assert mallory.request("DELETE", path, query={"gracePeriodSeconds": "0"}).status == 200
    body = {"metadata": {"finalizers": None}}
    assert mallory.request("PATCH", path, body, content_type="application/merge-patch+json").status == 200
    assert guarded.admin.request("GET", path).status == 404


# Pod templates with Knative's labels.

_FORGED = {"serving.knative.dev/service": "payments", "serving.knative.dev/revision": "payments-00001"}


def _create_workload(client: Client, namespace: str, kind: str, labels: dict[str, str]) -> Answer:
    resource, item = _workload(kind, labels)
    group = "/api/v1" if kind == "ReplicationController" else f"/apis/{item['apiVersion']}"
    return _create(client, f"{group}/namespaces/{namespace}/{resource}", item)


def _workload(kind: str, labels: dict[str, str]) -> tuple[str, Object]:
    job = kind in ("Job", "CronJob")
    app = {"app": "x"}
    pod = {"containers": [{"name": "app", "image": "i"}], **({"restartPolicy": "Never"} if job else {})}
    template = {"metadata": {"labels": {**labels, **app}}, "spec": pod}
    spec: Object = {"template": template}
    if kind == "CronJob":
        spec = {"schedule": "* * * * *", "jobTemplate": {"spec": spec}}
    elif kind == "ReplicationController":
        spec |= {"selector": app}
    elif kind != "Job":
        spec |= {"selector": {"matchLabels": app}} | ({"serviceName": "x"} if kind == "StatefulSet" else {})
    version = "batch/v1" if job else "v1" if kind == "ReplicationController" else "apps/v1"
    item = {"apiVersion": version, "kind": kind, "metadata": {"name": "forged"}, "spec": spec}
    return f"{kind.lower()}s", item


_KINDS = ["Deployment", "ReplicaSet", "StatefulSet", "DaemonSet", "Job", "CronJob", "ReplicationController"]


@pytest.mark.parametrize("kind", _KINDS)
@pytest.mark.parametrize("mode", [None, "enforce"])
def test_only_knative_writes_templates_of_services(guarded: ControlPlane, kind: str, mode: str | None) -> None:
    namespace = _namespace(guarded, mode)
    assert _refused(_create_workload(guarded.user("mallory"), namespace, kind, _FORGED), "knative-labels")
    assert _create_workload(guarded.user("mallory"), namespace, kind, {}).status == 201
    assert _create_workload(guarded.user(_KNATIVE), namespace, kind, _FORGED).status == 201
    assert _create_workload(guarded.user("boss"), namespace, kind, _FORGED).status == 201


def test_a_deployment_of_knatives_is_scaled_by_anybody_and_changed_by_nobody_else(guarded: ControlPlane) -> None:
    namespace = _namespace(guarded, None)
    _, item = _workload("Deployment", _FORGED)
    path = f"/apis/apps/v1/namespaces/{namespace}"
    guarded.user(_KNATIVE).create(f"{path}/deployments", item)
    # Its ReplicaSet carries the labels too: the deployment controller makes it.
    made = guarded.admin.until(f"{path}/replicasets", lambda sets: sets[0] if sets else None)
    assert made["spec"]["template"]["metadata"]["labels"]["serving.knative.dev/service"] == "payments"
    mallory = guarded.user("mallory")
    image = {"spec": {"template": {"spec": {"containers": [{"name": "app", "image": "evil"}]}}}}
    unlabel = {"spec": {"template": {"metadata": {"labels": dict.fromkeys(_FORGED)}}}}
    for resource in ("deployments/forged", f"replicasets/{made['metadata']['name']}"):
        assert _patch(mallory, f"{path}/{resource}", {"spec": {"replicas": 2}}).status == 200
        assert _patch(mallory, f"{path}/{resource}", {"metadata": {"labels": {"note": "x"}}}).status == 200
        assert _refused(_patch(mallory, f"{path}/{resource}", image), "knative-labels")
        assert _refused(_patch(mallory, f"{path}/{resource}", unlabel), "knative-labels")
    assert _patch(guarded.user(_KNATIVE), f"{path}/deployments/forged", image).status == 200


def test_labels_are_not_put_on_later_either(guarded: ControlPlane) -> None:
    namespace = _namespace(guarded, None)
    _, item = _workload("Deployment", {})
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments"
    guarded.admin.create(path, item)
    forge = {"spec": {"template": {"metadata": {"labels": _FORGED}}}}
    assert _refused(_patch(guarded.user("mallory"), f"{path}/forged", forge), "knative-labels")
