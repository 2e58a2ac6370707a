"""What an attacker inside the cluster tries against a running pod, with kubectl and on a kubelet.

Evidence is simulated, and the runtime class is plain runc: what a VM keeps from its host is not shown here.
"""

from __future__ import annotations

import pytest

from tests.cluster.client import Object
from tests.node.services import RESTRICTED, RESTRICTED_NAMESPACE, digest, service
from tests.node.stack import Stack, initial_message

pytestmark = [pytest.mark.node, pytest.mark.slow]

NAMESPACE = "attack"
_PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
_PATIENCE_SECONDS = 600.0
_PASSWORD = "of the victim"
_FILE = "/morphisms/secrets/db"
_VICTIMS = f"secret/knative/cluster/{NAMESPACE}/victim/db#password"


@pytest.fixture(scope="module")
def attacked(stack: Stack) -> Stack:
    """A namespace in enforce, whose pods may be restricted ones only."""
    stack.namespace(NAMESPACE, {"morphisms.dev/mode": "enforce", **RESTRICTED_NAMESPACE})
    return stack


@pytest.fixture(scope="module")
def victim(attacked: Stack) -> Object:
    """The one pod of a Service, ready."""
    attacked.morphisms.write_secret(f"knative/cluster/{NAMESPACE}/victim/db", password=_PASSWORD)
    annotations = {"morphisms.dev/secret-db": "~/db#password", "autoscaling.knative.dev/min-scale": "1"}
    place = f"{NAMESPACE}/victim"
    attacked.apply(service(attacked.application.pinned, place, annotations, env={"FILES": _FILE}))
    return attacked.ready_pod(NAMESPACE, "victim", seconds=_PATIENCE_SECONDS)


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (["debug", "POD", "--image=IMAGE", "--profile=restricted"], "isolation/ephemeral-containers"),
        (["exec", "POD", "-c", "user-container", "--", "/application"], "isolation/exec"),
        (["cp", "POD:/morphisms/secrets/db", "STOLEN", "-c", "user-container"], "isolation/exec"),
        (["attach", "POD", "-c", "user-container"], "isolation/exec"),
    ],
    ids=("debug", "exec", "cp", "attach"),
)
def test_kubectl_does_not_reach_into_a_pod(attacked: Stack, victim: Object, words: list[str], rule: str) -> None:
    """Not even as the cluster's administrator."""
    stolen = attacked.sandbox.folder / "stolen"
    meant = {"POD": victim["metadata"]["name"], "IMAGE": attacked.application.pinned, "STOLEN": str(stolen)}
    for name, value in meant.items():
        words = [word.replace(name, value) for word in words]
    done = attacked.admin.kubectl("-n", NAMESPACE, *words, check=False)
    assert done.code != 0
    assert rule in done.out + done.err
    assert not stolen.exists()


def test_no_pod_mounts_the_kubelets_folder_of_our_volumes(attacked: Stack, victim: Object) -> None:
    """As a cluster's administrator, in a namespace that Pod Security does not watch."""
    attacked.namespace("attack-plain", {"morphisms.dev/mode": "enforce"})
    volumes = f"/var/lib/kubelet/pods/{victim['metadata']['uid']}/volumes/kubernetes.io~empty-dir/morphisms-secrets"
    pod = _pod(attacked, "thief")
    pod["metadata"]["namespace"] = "attack-plain"
    pod["spec"]["volumes"] = [{"name": "theirs", "hostPath": {"path": volumes}}]
    pod["spec"]["containers"][0]["volumeMounts"] = [{"name": "theirs", "mountPath": "/theirs"}]
    done = attacked.admin.kubectl("apply", "-f", "-", input=pod, check=False)
    assert done.code != 0
    assert "isolation/host-path" in done.err


def test_no_pod_claims_to_be_the_victims(attacked: Stack, victim: Object) -> None:
    """The verifier would read the Service back from these labels."""
    forged = _pod(attacked, "forged")
    forged["metadata"]["labels"] = {
        key: value for key, value in victim["metadata"]["labels"].items() if key.startswith("serving.knative.dev/")
    }
    forged["metadata"]["annotations"] = {"morphisms.dev/secret-db": _VICTIMS}
    done = attacked.admin.kubectl("apply", "-f", "-", input=forged, check=False)
    assert done.code != 0
    assert "knative-labels" in done.err


def test_another_service_of_the_same_account_does_not_get_the_victims_secret(attacked: Stack, victim: Object) -> None:
    """It is attested, and Vault's policy gives it its own prefix alone."""
    assert victim["spec"].get("serviceAccountName", "default") == "default"
    annotations = {"morphisms.dev/secret-db": _VICTIMS}
    attacked.apply(service(attacked.application.pinned, f"{NAMESPACE}/second", annotations, env={"FILES": _FILE}))
    message = _told(attacked, "serving.knative.dev/service=second")
    assert "[vault-" in message
    assert _PASSWORD not in message


def test_a_pod_of_the_same_account_without_a_service_is_refused_by_the_verifier(attacked: Stack) -> None:
    pod = _pod(attacked, "alone")
    pod["metadata"]["annotations"] = {"morphisms.dev/secret-db": _VICTIMS}
    attacked.apply(pod)
    assert "[verifier-refused, correlation id " in _told(attacked, "app=alone")


def test_with_assurance_vm_a_person_who_may_change_the_service_may_read_its_secret(
    attacked: Stack, victim: Object
) -> None:
    """README says so: which workload it is rests on the control plane's word. Assurance `workload` pins the image."""
    annotations = {"morphisms.dev/secret-mine": "~/db#password"}
    env = {"FILES": "/morphisms/secrets/mine"}
    attacked.apply(service(attacked.application.pinned, f"{NAMESPACE}/victim", annotations, env=env))
    label = "serving.knative.dev/revision=victim-00002"
    attacked.admin.until(_PODS, _running, seconds=_PATIENCE_SECONDS, labelSelector=label)
    answer = attacked.request(NAMESPACE, "victim-00002", seconds=_PATIENCE_SECONDS)
    assert answer.content["files"] == {"/morphisms/secrets/mine": digest(_PASSWORD)}


def _pod(attacked: Stack, name: str) -> Object:
    """A bare pod with the tests' application."""
    container = {
        "name": "app",
        "image": attacked.application.pinned,
        "securityContext": RESTRICTED,
        "env": [{"name": "PORT", "value": "8080"}],
    }
    metadata = {"name": name, "namespace": NAMESPACE, "labels": {"app": name}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [container]}}


def _told(attacked: Stack, label: str) -> str:
    """The termination message of a pod's morphisms-init."""

    def ended(pods: list[Object]) -> str:
        return next((text for pod in pods if (text := initial_message(pod))), "")

    return str(attacked.admin.until(_PODS, ended, seconds=_PATIENCE_SECONDS, labelSelector=label))


def _running(pods: list[Object]) -> bool:
    return any(pod["status"].get("phase") == "Running" for pod in pods)
