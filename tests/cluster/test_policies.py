"""The companion policies, in an API server that has no webhook of ours: what each allows and refuses, and to whom.

`mallory` may do everything that RBAC knows but for the verbs `loosen` and `break-glass`; `boss` has these too.
"""

from __future__ import annotations

import base64
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from tests.cluster.asking import INJECTED, PODS, STATUS, make_pod
from tests.cluster.client import JSON_PATCH, Answer, Client, Object
from tests.cluster.controlplane import ControlPlane
from tests.cluster.guarded import CLASSES, KNATIVE, NAMESPACES, OURS, SCANNER, bind, new_namespace, runtime_class
from tests.cluster.policies import wait_for_policies
from tests.support.until import until
from webhook.configuration.model import Configuration
from webhook.modes import Mode, mode_of_label
from webhook.pod.opt_in import requests_injection
from webhook.pod.pod import Pod

_MUTATING = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
_DRY = {"dryRun": "All"}


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
    cluster.admin.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    cluster.admin.until(f"{NAMESPACES}/{name}/serviceaccounts", bool)
    return name


def _label(client: Client, namespace: str, mode: str | None, subresource: str = "") -> Answer:
    return _patch(
        client, f"{NAMESPACES}/{namespace}{subresource}", {"metadata": {"labels": {"morphisms.dev/mode": mode}}}
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
    item = guarded.admin.get(f"{NAMESPACES}/{namespace}")
    del item["metadata"]["labels"]["morphisms.dev/mode"]
    path = f"{NAMESPACES}/{namespace}{subresource}"
    assert _refused(guarded.user("mallory").request("PUT", path, item, query=_DRY), "mode-ratchet")
    assert not _refused(guarded.user("boss").request("PUT", path, item, query=_DRY), "mode-ratchet")


def test_the_verb_in_one_namespace_is_none_in_another(guarded: ControlPlane) -> None:
    mine, other = _namespace(guarded, "enforce"), _namespace(guarded, "enforce")
    bind(guarded.admin, "morphisms-loosen", "mallory", namespace=mine)
    until(lambda: not _refused(_label(guarded.user("mallory"), mine, None), "mode-ratchet"))
    assert _refused(_label(guarded.user("mallory"), other, None), "mode-ratchet")


@pytest.mark.parametrize(
    ("mode", "refused"), [(None, False), ("audit", False), ("inject", True), ("enforce", True), ("mistyped", True)]
)
def test_a_namespace_is_not_made_anew_without_its_mode(guarded: ControlPlane, mode: str | None, refused: bool) -> None:
    path = f"{NAMESPACES}/{_namespace(guarded, mode)}"
    assert _refused(guarded.user("mallory").request("DELETE", path, query=_DRY), "mode-ratchet") is refused
    assert not _refused(guarded.user("boss").request("DELETE", path, query=_DRY), "mode-ratchet")


def test_what_is_no_mode_changes_freely(guarded: ControlPlane) -> None:
    namespace = _namespace(guarded, "enforce")
    labels = {"metadata": {"labels": {"team": "shop"}, "annotations": {"note": "x"}}}
    assert _patch(guarded.user("mallory"), f"{NAMESPACES}/{namespace}", labels).status == 200


@pytest.mark.parametrize(
    ("name", "mode", "refused"),
    [("shop", None, True), ("shop", "inject", True), ("shop", "enforce", False), ("knative-serving", None, False)],
)
def test_with_the_overlay_enforce_namespaces_begin_there(
    guarded: ControlPlane, name: str, mode: str | None, refused: bool
) -> None:
    item = new_namespace(name, mode)
    assert _refused(_create(guarded.user("mallory"), NAMESPACES, item), "mode-required") is refused
    assert _create(guarded.user("boss"), NAMESPACES, item).status == 201


# Our webhook configurations.

_BUNDLE = base64.b64encode(b"-----BEGIN CERTIFICATE-----\n").decode()
_SET_BUNDLE = [{"op": "add", "path": "/webhooks/1/clientConfig/caBundle", "value": _BUNDLE}]


@pytest.mark.parametrize("kind", ["mutatingwebhookconfigurations", "validatingwebhookconfigurations"])
def test_our_account_writes_the_bundle_and_nobody_else_does(guarded: ControlPlane, kind: str) -> None:
    path = f"/apis/admissionregistration.k8s.io/v1/{kind}/morphisms"
    for user, refused in ((OURS, False), ("mallory", True), ("boss", False)):
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
    for user in (OURS, "mallory"):
        for patch in (change, [*_SET_BUNDLE, *change]):
            assert _refused(_patch(guarded.user(user), path, patch, JSON_PATCH), "configuration-guard"), user
    assert not _refused(_patch(guarded.user("boss"), path, change, JSON_PATCH), "configuration-guard")


def test_our_configurations_stay_and_others_are_none_of_our_business(guarded: ControlPlane) -> None:
    mallory, path = guarded.user("mallory"), f"{_MUTATING}/morphisms"
    other = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration"}
    assert _refused(mallory.request("DELETE", path, query=_DRY), "configuration-guard")
    assert _refused(mallory.request("DELETE", _MUTATING, query=_DRY), "configuration-guard")
    assert _refused(_create(mallory, _MUTATING, {**other, "metadata": {"name": "morphisms"}}), "configuration-guard")
    assert _refused(guarded.user(OURS).request("DELETE", path, query=_DRY), "configuration-guard")
    assert _create(mallory, _MUTATING, {**other, "metadata": {"name": "theirs"}}).status == 201


def test_writing_what_is_there_already_changes_nothing(guarded: ControlPlane) -> None:
    item = guarded.admin.get(f"{_MUTATING}/morphisms")
    assert guarded.user("mallory").request("PUT", f"{_MUTATING}/morphisms", item, query=_DRY).status == 200


# RuntimeClasses of the profiles.


def test_a_profiles_runtime_class_keeps_what_it_does(guarded: ControlPlane) -> None:
    scheduling = {"nodeSelector": {"amd.feature.node.kubernetes.io/snp": "true"}}
    guarded.admin.patch(f"{CLASSES}/kata-qemu-snp", {"scheduling": scheduling})
    path, mallory = f"{CLASSES}/kata-qemu-snp", guarded.user("mallory")
    refused: list[Object] = [
        {"scheduling": None},
        {"scheduling": {"nodeSelector": {"amd.feature.node.kubernetes.io/snp": "false"}}},
    ]
    for change in refused:
        assert _refused(_patch(mallory, path, change), "runtime-class-guard"), change
        assert not _refused(_patch(guarded.user("boss"), path, change), "runtime-class-guard"), change
    assert _patch(mallory, path, {"metadata": {"labels": {"note": "x"}}}).status == 200
    # Kata's own upgrade changes it, and nothing of the isolation depends on it.
    assert _patch(mallory, path, {"overhead": {"podFixed": {"memory": "1Mi"}}}).status == 200
    assert _refused(mallory.request("DELETE", path, query=_DRY), "runtime-class-guard")
    assert _refused(mallory.request("DELETE", CLASSES, query=_DRY), "runtime-class-guard")
    assert guarded.user("boss").request("DELETE", path, query=_DRY).status == 200
    guarded.admin.patch(path, {"scheduling": None})


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
    item = runtime_class(name, handler)
    assert _refused(_create(guarded.user("mallory"), CLASSES, item), "runtime-class-guard") is refused
    assert _create(guarded.user("boss"), CLASSES, item).status == 201


# A pod that asks for injection has it.


@pytest.mark.parametrize("mode", [None, "mistyped", "audit", "inject", "enforce"])
def test_a_pod_that_asks_waits_for_injection_as_the_webhook_reads_it(guarded: ControlPlane, mode: str | None) -> None:
    namespace = _namespace(guarded, mode)
    for name, pod in PODS.items():
        opted_in = mode_of_label(mode) is Mode.ENFORCE or requests_injection(
            Pod(pod, namespace, Configuration()), mode_of_label(mode)
        )
        answer = _create(guarded.user("mallory"), f"{NAMESPACES}/{namespace}/pods", pod)
        assert _refused(answer, "injection-present") is opted_in, name


_TOLD = {"morphisms.dev/inject": "true"}
_SECRET = {"morphisms.dev/secret-db": "secret/shop/db"}
_KATA = {"runtimeClassName": "kata-qemu-snp"}


@pytest.mark.parametrize("mode", [None, "audit", "inject", "enforce"])
def test_an_injected_pod_is_let_through(guarded: ControlPlane, mode: str | None) -> None:
    path = f"{NAMESPACES}/{_namespace(guarded, mode)}/pods"
    measured = {"io.katacontainers.config.hypervisor.cc_init_data": "x"}
    # The status annotation says nothing in either direction.
    for own in (_TOLD, STATUS | _TOLD | _SECRET, _TOLD | _SECRET | measured):
        assert _create(guarded.user("mallory"), path, make_pod(own, init=[INJECTED], more=_KATA)).status == 201, own


@pytest.mark.parametrize("mode", [None, "mistyped", "audit", "inject", "enforce"])
@pytest.mark.parametrize(
    ("init", "more"),
    [
        ([], {}),
        ([], _KATA),
        ([INJECTED], {}),
        ([INJECTED], {"runtimeClassName": "runc"}),
        ([INJECTED], _KATA | {"nodeName": "plain-0"}),
        ([INJECTED], _KATA | {"hostNetwork": True}),
        ([INJECTED], _KATA | {"hostPID": True}),
        ([INJECTED], _KATA | {"hostIPC": True}),
        ([{"name": "morphisms-init2", "image": "i"}], _KATA),
    ],
    ids=str,
)
def test_a_pod_that_only_says_that_it_was_injected_is_refused_without_the_webhook(
    guarded: ControlPlane, mode: str | None, init: list[Object], more: Object
) -> None:
    """The attack: the registration is gone, and the author writes the annotations and names that injection leaves."""
    path = f"{NAMESPACES}/{_namespace(guarded, mode)}/pods"
    for own in (STATUS | _TOLD, STATUS | _TOLD | _SECRET):
        answer = _create(guarded.user("mallory"), path, make_pod(own, init=init, more=more))
        assert _refused(answer, "injection-present"), own
    answer = _create(guarded.user("mallory"), path, make_pod(STATUS, init=init, more=more))
    carries = any(each["name"] == "morphisms-init" for each in init)
    is_for_it = mode in ("mistyped", "enforce") or (mode is not None and carries)
    assert _refused(answer, "injection-present") is is_for_it
    # Opting out is no way around it in enforce.
    out = make_pod(STATUS | {"morphisms.dev/inject": "false"}, init=init, more=more)
    assert _refused(_create(guarded.user("mallory"), path, out), "injection-present") is (
        mode in ("mistyped", "enforce")
    )


def test_an_author_chooses_no_profile_that_the_configuration_does_not_list(guarded: ControlPlane) -> None:
    """Pods of profile `system` need no RuntimeClass, those of `peer-pod` another one; neither is listed here."""
    path = f"{NAMESPACES}/{_namespace(guarded, 'enforce')}/pods"
    for profile in ("system", "peer-pod", "kms", "none", ""):
        pod = make_pod({"morphisms.dev/profile": profile}, init=[INJECTED], more=_KATA)
        assert _refused(_create(guarded.user("mallory"), path, pod), "injection-present"), profile
    pod = make_pod({"morphisms.dev/profile": "kata-snp"}, init=[INJECTED], more=_KATA)
    assert _create(guarded.user("mallory"), path, pod).status == 201


def test_a_large_pod_that_does_not_opt_in_is_let_through(guarded: ControlPlane) -> None:
    """The guard reads 2,000 variables and a megabyte of their text within the API server's cost limit."""
    path = f"{NAMESPACES}/{_namespace(guarded, 'audit')}/pods"
    for variables, length in ((2000, 20), (1000, 1000), (1, 1_000_000)):
        pod = make_pod({"morphisms.dev/profile": "kata-snp"}, args=["x" * 1000] * 1000)
        pod["spec"]["containers"][0]["env"] = [{"name": f"V{n}", "value": "x" * length} for n in range(variables)]
        answer = _create(guarded.user("mallory"), path, pod)
        assert answer.status == 201, (variables, answer.message)
    pod["spec"]["containers"][0]["env"] = [{"name": f"V{n}", "value": "x"} for n in range(30_000)]
    assert _refused(_create(guarded.user("mallory"), path, pod), "injection-present"), "too many to look through"


_LISTED = """
version: 1
namespaces:
  SHOP: {profiles: [peer-pod, lab]}
  PLATFORM: {profile: system}
profiles:
  - name: lab
    isolation: pod-vm
    runtimeClasses: [lab-snp, lab-snp-2]
    handlers: [lab]
    evidence: [{source: coco-aa, address: "http://127.0.0.1:8006"}]
identities: {knative: ["system:serviceaccount:serving:controller"]}
verifier: {audience: our-verifier}
"""


def test_the_guards_follow_the_configuration(guarded: ControlPlane, tmp_path: Path) -> None:
    """`morphisms guards --config F`, applied: each namespace's pods need what their profile says, and no other's."""
    shop, platform, other = (_namespace(guarded, "enforce") for _ in range(3))
    file = tmp_path / "configuration.yaml"
    file.write_text(_LISTED.replace("SHOP", shop).replace("PLATFORM", platform))
    mallory = guarded.user("mallory")

    def create(namespace: str, profile: str | None, more: Object, *, init: bool = True) -> bool:
        own = {"morphisms.dev/profile": profile} if profile is not None else {}
        pod = make_pod(own, init=[INJECTED] if init else [], more=more)
        return _refused(_create(mallory, f"{NAMESPACES}/{namespace}/pods", pod), "injection-present")

    for name in ("lab-snp", "lab-snp-2", "kata-remote"):
        handler = "kata-remote" if name == "kata-remote" else "lab"
        guarded.admin.create(CLASSES, runtime_class(name, handler))
    try:
        _apply_guards(guarded, file)
        assert not create(shop, "lab", {"runtimeClassName": "lab-snp"})
        assert not create(shop, "lab", {"runtimeClassName": "lab-snp-2"})
        assert not create(shop, "peer-pod", {"runtimeClassName": "kata-remote"})
        assert not create(shop, None, _KATA)
        assert create(shop, "peer-pod", _KATA)
        assert create(shop, "lab", {"runtimeClassName": "lab-snp"}, init=False)
        assert create(other, "lab", {"runtimeClassName": "lab-snp"})
        assert not create(platform, None, {}, init=False)
        assert create(platform, None, {"hostPID": True}, init=False)
        assert create(platform, "kata-snp", _KATA)
        changed = runtime_class("lab-snp-3", "runc")
        assert not _refused(_create(mallory, CLASSES, changed), "runtime-class-guard")
        assert _refused(mallory.request("DELETE", f"{CLASSES}/lab-snp", query=_DRY), "runtime-class-guard")
        token = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"audiences": ["our-verifier"]},
        }
        account = f"{NAMESPACES}/{shop}/serviceaccounts/default/token"
        assert _refused(mallory.request("POST", account, token), "verifier-token")
        assert _refused(_create_workload(guarded.user(KNATIVE), shop, "Deployment", _FORGED), "knative-labels")
    finally:
        _apply_guards(guarded, None)
        for name in ("lab-snp", "lab-snp-2", "kata-remote"):
            guarded.admin.delete(f"{CLASSES}/{name}")


def _apply_guards(cluster: ControlPlane, configuration: Path | None) -> None:
    command = [sys.executable, "-m", "cli.main", "guards"]
    command += ["--config", str(configuration)] if configuration is not None else []
    written = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", input=written)
    wait_for_policies(cluster.admin)


# Morphisms' own ConfigMaps.

_MAPS = f"{NAMESPACES}/morphisms-system/configmaps"


def _config_map(name: str, **data: str) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def test_who_writes_in_our_namespace_does_not_write_our_config_maps(guarded: ControlPlane) -> None:
    """The configuration can loosen each rule, and every replica accepts the templates that stand in theirs."""
    mallory, boss, ours = (guarded.user(name) for name in ("mallory", "boss", OURS))
    for name in ("morphisms-webhook", "morphisms-webhook-templates"):
        path, is_templates = f"{_MAPS}/{name}", name.endswith("templates")
        assert _refused(_create(mallory, _MAPS, _config_map(name, a="b")), "configmap-guard")
        assert _refused(_create(ours, _MAPS, _config_map(name, a="b")), "configmap-guard") is not is_templates
        # As the manifests have the templates before the first replica starts.
        empty = {key: value for key, value in _config_map(name).items() if key != "data"}
        assert _refused(_create(mallory, _MAPS, empty), "configmap-guard") is not is_templates
        guarded.admin.create(_MAPS, _config_map(name, a="b"))
        changes: list[Object] = [
            {"data": {"a": "c"}},
            {"data": None},
            {"binaryData": {"x": "eA=="}},
            {"immutable": True},
        ]
        for change in changes:
            assert _refused(_patch(mallory, path, change), "configmap-guard"), change
            assert _refused(_patch(ours, path, change), "configmap-guard") is not is_templates, change
            assert _patch(boss, path, change).status == 200
        assert _patch(mallory, path, {"metadata": {"labels": {"note": "x"}}, "data": {"a": "b"}}).status == 200
        for user in (mallory, ours):
            assert _refused(user.request("DELETE", path, query=_DRY), "configmap-guard")
            assert _refused(user.request("DELETE", _MAPS, query=_DRY), "configmap-guard")
        assert boss.request("DELETE", path, query=_DRY).status == 200
    assert _create(mallory, _MAPS, _config_map("theirs")).status == 201
    templates = f"{_MAPS}/morphisms-webhook-templates"
    assert _refused(_patch(guarded.user(SCANNER), templates, {"data": {"a": "other"}}), "configmap-guard")
    elsewhere = f"{NAMESPACES}/{_namespace(guarded, 'enforce')}/configmaps"
    assert _create(mallory, elsewhere, _config_map("morphisms-webhook")).status == 201


def test_the_scanner_alone_says_what_it_probed(guarded: ControlPlane) -> None:
    """A forged ConfigMap would have preflight call a namespace ready whose pods reach no verifier."""
    scanner, path = guarded.user(SCANNER), f"{_MAPS}/morphisms-probes"
    probes = _config_map("morphisms-probes", **{"probes.json": "{}"})
    for user in (guarded.user("mallory"), guarded.user(OURS)):
        assert _refused(_create(user, _MAPS, probes), "configmap-guard")
    assert scanner.request("POST", _MAPS, probes).status == 201
    change = {"data": {"probes.json": '{"version": 1}'}}
    for user in (guarded.user("mallory"), guarded.user(OURS)):
        assert _refused(_patch(user, path, change), "configmap-guard")
        assert _refused(user.request("DELETE", path, query=_DRY), "configmap-guard")
    assert _patch(scanner, path, change).status == 200
    assert guarded.user("boss").request("DELETE", path, query=_DRY).status == 200


def test_who_is_exempt_and_who_says_so_only(guarded: ControlPlane) -> None:
    path = f"{NAMESPACES}/{_namespace(guarded, 'enforce')}/pods"
    assert _create(guarded.user(KNATIVE), path, make_pod()).status == 201
    assert _refused(guarded.user(KNATIVE).request("POST", path, make_pod()), "injection-present")
    mirror = make_pod(
        {"kubernetes.io/config.mirror": "x", "kubernetes.io/config.source": "file"}, more={"nodeName": "n1"}
    )
    assert _refused(_create(guarded.user("mallory"), path, mirror), "injection-present")
    guarded.admin.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}})
    uid = guarded.admin.get("/api/v1/nodes/n1")["metadata"]["uid"]
    owner = {"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": uid, "controller": True}
    mirror["metadata"]["ownerReferences"] = [owner]
    # NodeRestriction looks the node up in a copy of the API server's, and refuses a kubelet that it does not know yet.
    until(lambda: _create(guarded.node("n1"), path, mirror).status == 201)


def test_a_running_pod_is_changed_and_deleted_freely(guarded: ControlPlane) -> None:
    namespace = _namespace(guarded, None)
    pod = make_pod({"morphisms.dev/secret-db": "secret/shop/db"})
    pod["metadata"] = {"name": "old", "annotations": pod["metadata"]["annotations"], "finalizers": ["example.org/x"]}
    path = f"{NAMESPACES}/{namespace}/pods/old"
    guarded.admin.create(f"{NAMESPACES}/{namespace}/pods", pod)
    guarded.admin.patch(f"{NAMESPACES}/{namespace}", {"metadata": {"labels": {"morphisms.dev/mode": "enforce"}}})
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
    assert _create_workload(guarded.user(KNATIVE), namespace, kind, _FORGED).status == 201
    assert _create_workload(guarded.user("boss"), namespace, kind, _FORGED).status == 201


def test_a_deployment_of_knatives_is_scaled_by_anybody_and_changed_by_nobody_else(guarded: ControlPlane) -> None:
    namespace = _namespace(guarded, None)
    _, item = _workload("Deployment", _FORGED)
    path = f"/apis/apps/v1/namespaces/{namespace}"
    guarded.user(KNATIVE).create(f"{path}/deployments", item)
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
    assert _patch(guarded.user(KNATIVE), f"{path}/deployments/forged", image).status == 200


def test_labels_are_not_put_on_later_either(guarded: ControlPlane) -> None:
    namespace = _namespace(guarded, None)
    _, item = _workload("Deployment", {})
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments"
    guarded.admin.create(path, item)
    forge = {"spec": {"template": {"metadata": {"labels": _FORGED}}}}
    assert _refused(_patch(guarded.user("mallory"), f"{path}/forged", forge), "knative-labels")
