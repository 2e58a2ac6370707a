"""The key server's namespace: the overlay's own pod is admitted there, in a confidential VM, and no other pod."""

from __future__ import annotations

import copy
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.main import main
from cli.proof.guest_requests import Host, guest_requests
from measured.measured_document import differences, document_of_annotation
from measured.pod import INITDATA_ANNOTATION
from tests.cli import rendering
from tests.cluster.attacks import DRY, IMAGE, is_confidential, make_pod, mallory, reasons
from tests.cluster.client import Client, Object
from tests.cluster.controlplane import ControlPlane
from tests.cluster.namespace import Namespace
from tests.cluster.rendered import write_inputs
from tests.manifests.rendering import MANIFESTS
from tests.support.policy_engine import Engine
from tests.support.until import until

pytestmark = pytest.mark.usefixtures("morphisms")
_GUARD = "key-server.morphisms.dev"
_DIGEST = "sha256:" + "d" * 64
_BAO_DIGEST = "sha256:" + "c" * 64
_CONFIGURATIONS: dict[str, Object] = {
    f"registry.example/verifier@{_DIGEST}": {"Entrypoint": ["/usr/bin/morphisms"], "User": "65532:65532"},
    f"openbao/openbao@{_BAO_DIGEST}": {"Env": ["PATH=/bin"], "User": "100:1000"},
}
_OWNER = {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "morphisms-verifier", "controller": True}
_CONTROLLER = "system:serviceaccount:kube-system:statefulset-controller"
# The namespace is held to Pod Security's restricted level, and these tests are about what comes on top of it.
_RESTRICTED: Object = {
    "securityContext": {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
}
_PLACED: Object = {
    "container": _RESTRICTED,
    "runtimeClassName": "kata-qemu-snp",
    "affinity": {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [
                    {
                        "matchExpressions": [
                            {"key": "amd.feature.node.kubernetes.io/snp", "operator": "In", "values": ["true"]}
                        ]
                    }
                ]
            }
        }
    },
}


def _guard() -> list[Object]:
    """The overlay's policy and its binding."""
    return list(yaml.safe_load_all((MANIFESTS / "overlays" / "kms-in-guests" / "guard.yaml").read_text()))


def _deletion(item: Object) -> str:
    """The patch that takes an object out of a kustomization."""
    named = {"apiVersion": item["apiVersion"], "kind": item["kind"], "metadata": {"name": item["metadata"]["name"]}}
    return yaml.safe_dump({"$patch": "delete", **named})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the rendering."""
    return tmp_path_factory.mktemp("kms")


@pytest.fixture(scope="module")
def here(cluster: ControlPlane, folder: Path) -> Iterator[Namespace]:
    """The overlay, rendered and applied as docs/kms.md says; without its guard, to see the webhook answer."""
    base = os.path.relpath(MANIFESTS / "overlays" / "kms-in-guests", folder.resolve())
    images = [
        {"name": "morphisms/verifier", "newName": "registry.example/verifier", "digest": _DIGEST},
        {"name": "openbao/openbao", "digest": _BAO_DIGEST},
    ]
    # The guard answers before the webhook does, and an API server takes up its removal late. Its own test brings it.
    left_out = [{"target": {"kind": each["kind"]}, "patch": _deletion(each)} for each in _guard()]
    kustomization = {"kind": "Kustomization", "resources": [base], "images": images, "patches": left_out}
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    (folder / "kms.yaml").write_text(cluster.admin.kubectl("kustomize", folder).out)
    # No template of the cluster's is in the document of a pod that is not injected.
    options = write_inputs(folder / "inputs", rendering.cluster(), _CONFIGURATIONS)
    assert main(["render", "-f", str(folder / "kms.yaml"), *options, "-o", str(folder / "out")]) == 0
    rendered = folder / "out" / "workload.yaml"
    cluster.admin.kubectl("apply", "--server-side", "-f", rendered)
    namespace = Namespace("morphisms-kms", cluster.admin)
    cluster.admin.until(namespace.path("serviceaccounts"), bool)
    yield namespace
    cluster.admin.kubectl("delete", "--wait=true", "--timeout=280s", "--ignore-not-found", "-f", rendered)


@pytest.fixture(scope="module")
def pod(here: Namespace) -> Object:
    """The pod that the StatefulSet's controller made."""
    (made,) = here.admin.until(here.pods(), lambda pods: pods or None)
    made_pod: Object = made
    return made_pod


@pytest.fixture(scope="module")
def attacker(cluster: ControlPlane) -> Client:
    return mallory(cluster)


def test_the_key_servers_pod_is_confidential_and_never_injected(pod: Object) -> None:
    assert pod["metadata"]["name"] == "morphisms-verifier-0"
    spec = pod["spec"]
    assert spec["runtimeClassName"] == "kata-qemu-snp"
    assert [each["name"] for each in spec["containers"]] == ["verifier", "openbao"]
    assert "initContainers" not in spec
    assert json.loads(pod["metadata"]["annotations"]["morphisms.dev/status"])["profile"] == "kms"
    assert not [each for each in spec["volumes"] if "secret" in each]
    assert not is_confidential(pod)  # in the sense of an application's pod, which has morphisms-init


def test_the_key_servers_pod_is_the_one_that_was_measured(pod: Object, folder: Path) -> None:
    """The signed reference values name its document's digest, and its guest carries out what an honest host asks."""
    document = document_of_annotation(pod["metadata"]["annotations"][INITDATA_ANNOTATION])
    assert document is not None
    assert differences(pod, document) == []
    guest = yaml.safe_load((folder / "out" / "guest.yaml").read_text())
    assert guest == {"hostData": [document.initdata.host_data.hex()]}
    requests = guest_requests(pod, _CONFIGURATIONS, Host(random.Random(1)))
    with Engine((folder / "out" / "policy.rego").read_text()) as engine:
        assert [ask["kind"] for ask in requests if not engine.ask(ask["kind"], ask["request"])] == []


def test_a_changed_key_server_makes_no_pod(cluster: ControlPlane, here: Namespace, pod: Object) -> None:
    """The StatefulSet can be changed; its controller then asks for a pod that is not the measured one."""
    controller = cluster.user(_CONTROLLER)
    sound = {"apiVersion": "v1", "kind": "Pod", "metadata": dict(pod["metadata"]), "spec": copy.deepcopy(pod["spec"])}
    for name in ("uid", "resourceVersion", "creationTimestamp", "managedFields"):
        sound["metadata"].pop(name, None)
    sound["metadata"]["name"] = sound["spec"]["hostname"] = "morphisms-verifier-1"
    sound["spec"].pop("nodeName", None)
    assert controller.request("POST", here.pods(), sound, query=DRY).status == 201
    verifier, openbao = sound["spec"]["containers"]
    changes: list[tuple[Object, str, Any]] = [
        (verifier, "args", ["verifier", "--config", "/tmp/verifier.yaml"]),
        (verifier, "image", f"registry.example/verifier@sha256:{'e' * 64}"),
        (verifier, "env", [{"name": "PYTHONPATH", "value": "/var/lib/morphisms"}]),
        (openbao, "command", ["sh", "-c", "sleep 3600"]),
        (sound["spec"], "hostname", "other"),
    ]
    for target, field, value in changes:
        before = target.get(field)
        target[field] = value
        assert reasons(controller.request("POST", here.pods(), sound, query=DRY)) == {"isolation/measured-pod"}, field
        target[field] = before


@pytest.mark.parametrize(
    "other",
    [
        make_pod(**_PLACED),
        make_pod(**_PLACED, annotations={"morphisms.dev/inject": "true"}),
        make_pod(**_PLACED, annotations={"morphisms.dev/inject": "false"}),
        make_pod(**_PLACED, labels={"app.kubernetes.io/name": "morphisms", "app.kubernetes.io/component": "verifier"}),
    ],
    ids=["plain", "opts-in", "opts-out", "selected-by-the-service"],
)
def test_another_pod_is_refused(here: Namespace, attacker: Client, other: Object) -> None:
    assert reasons(attacker.request("POST", here.pods(), other, query=DRY)) == {"isolation/key-server"}


def test_a_pod_that_claims_to_be_the_stateful_sets_is_refused(here: Namespace, pod: Object, attacker: Client) -> None:
    """Written by hand, with the true owner's uid and name."""
    claims = make_pod(**_PLACED)
    claims["metadata"]["ownerReferences"] = [{**_OWNER, "uid": pod["metadata"]["ownerReferences"][0]["uid"]}]
    assert reasons(attacker.request("POST", here.pods(), claims, query=DRY)) == {"isolation/key-server"}


def test_a_pod_of_another_profile_is_refused(here: Namespace, attacker: Client) -> None:
    other = make_pod(annotations={"morphisms.dev/profile": "kata-snp"}, container=_RESTRICTED)
    assert "placement/profile" in reasons(attacker.request("POST", here.pods(), other, query=DRY))


def test_a_deployments_pods_never_come(here: Namespace) -> None:
    """The author of a Deployment reads it in the ReplicaSet's condition."""
    labels = {"app": "other"}
    template = {
        "metadata": {"labels": labels},
        "spec": {"containers": [{"name": "app", "image": IMAGE, **_RESTRICTED}]},
    }
    spec = {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}
    path = here.path("deployments", group="apps/v1")
    here.admin.create(
        path, {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "other"}, "spec": spec}
    )
    told = here.admin.until(
        here.path("replicasets", group="apps/v1"),
        lambda sets: [
            condition["message"]
            for each in sets
            for condition in each.get("status", {}).get("conditions", ())
            if condition["type"] == "ReplicaFailure"
        ],
    )
    assert "namespace morphisms-kms is for the pods of StatefulSet morphisms-verifier" in told[0]
    here.admin.delete(f"{path}/other", propagationPolicy="Background")


@pytest.mark.parametrize("door", ["exec", "attach", "portforward"])
def test_nobody_reaches_into_the_key_server(here: Namespace, pod: Object, attacker: Client, door: str) -> None:
    path = f"{here.pods(pod['metadata']['name'])}/{door}"
    query = {"command": "sh", "container": "openbao"} if door == "exec" else {}
    assert reasons(attacker.request("POST", path, query=query)) == {"isolation/exec"}


def test_a_debug_container_is_refused(here: Namespace, pod: Object, attacker: Client) -> None:
    path = f"{here.pods(pod['metadata']['name'])}/ephemeralcontainers"
    body = {"spec": {"ephemeralContainers": [{"name": "debug", "image": IMAGE, **_RESTRICTED}]}}
    answer = attacker.request("PATCH", path, body, content_type="application/strategic-merge-patch+json", query=DRY)
    assert "isolation/ephemeral-containers" in reasons(answer)


@pytest.fixture(scope="module")
def plain_class(cluster: ControlPlane) -> Iterator[str]:
    """A RuntimeClass whose pods are no VMs."""
    path = "/apis/node.k8s.io/v1/runtimeclasses"
    metadata = {"name": "plain-for-key-server"}
    cluster.admin.create(
        path, {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": metadata, "handler": "runc"}
    )
    yield metadata["name"]
    cluster.admin.delete(f"{path}/{metadata['name']}")


def test_a_weaker_key_server_makes_no_pod(
    cluster: ControlPlane, here: Namespace, pod: Object, plain_class: str
) -> None:
    """The StatefulSet's author may write anything; what counts is the pod that its controller asks for."""
    controller = cluster.user(_CONTROLLER)
    keys: Object = {"name": "keys", "secret": {"secretName": "keys"}}
    mount = {"volumeMounts": [{"name": "keys", "mountPath": "/etc/keys", "readOnly": True}]}
    weaker: dict[str, Object] = {
        "placement/runtime-class": {**_PLACED, "runtimeClassName": plain_class},
        "secrets/kubernetes-secret-volume": {**_PLACED, "container": {**_RESTRICTED, **mount}, "volumes": [keys]},
        "images/digest": {**_PLACED, "container": {**_RESTRICTED, "image": "registry.example/verifier:latest"}},
    }
    owners = [{**_OWNER, "uid": pod["metadata"]["ownerReferences"][0]["uid"]}]
    for rule, spec in weaker.items():
        attempt = make_pod("morphisms-verifier-1", **spec)
        attempt["metadata"]["ownerReferences"] = owners
        assert reasons(controller.request("POST", here.pods(), attempt, query=DRY)) == {rule}
    sound = make_pod("morphisms-verifier-1", **_PLACED)
    sound["metadata"]["ownerReferences"] = owners
    assert controller.request("POST", here.pods(), sound, query=DRY).status == 201


def test_an_application_elsewhere_never_gets_the_profile(cluster: ControlPlane, attacker: Client) -> None:
    namespace = Namespace.make(cluster.admin, "enforce", {})
    try:
        wish = make_pod(annotations={"morphisms.dev/profile": "kms"})
        assert "placement/profile" in reasons(attacker.request("POST", namespace.pods(), wish, query=DRY))
    finally:
        namespace.delete()


@pytest.fixture
def guarded(here: Namespace, attacker: Client) -> Iterator[None]:
    """The overlay's guard is in force, also for an API server that took it up a moment ago."""
    here.admin.apply(*_guard())
    until(lambda: _GUARD in reasons(attacker.request("POST", here.pods(), make_pod(**_PLACED), query=DRY)))
    yield
    here.admin.kubectl("delete", "validatingadmissionpolicybinding,validatingadmissionpolicy", _GUARD)


@pytest.mark.usefixtures("guarded")
def test_the_guard_holds_without_the_webhook(
    cluster: ControlPlane, here: Namespace, pod: Object, attacker: Client
) -> None:
    """The API server answers itself: its policies come before any webhook."""
    name = pod["metadata"]["name"]
    claims = make_pod(**_PLACED)
    claims["metadata"]["ownerReferences"] = [{**_OWNER, "uid": pod["metadata"]["ownerReferences"][0]["uid"]}]
    debug = {"spec": {"ephemeralContainers": [{"name": "debug", "image": IMAGE, **_RESTRICTED}]}}
    strategic = "application/strategic-merge-patch+json"
    for answer in (
        attacker.request("POST", here.pods(), claims, query=DRY),
        attacker.request("POST", f"{here.pods(name)}/exec", query={"command": "sh", "container": "openbao"}),
        attacker.request("PATCH", f"{here.pods(name)}/ephemeralcontainers", debug, content_type=strategic, query=DRY),
    ):
        assert _GUARD in reasons(answer), answer.message
    claims["metadata"]["name"] = "morphisms-verifier-1"
    controller = cluster.user(_CONTROLLER)
    assert controller.request("POST", here.pods(), claims, query=DRY).status == 201
