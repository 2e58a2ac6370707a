"""What each mode of a namespace does, seen by those who use it: the developer's kubectl and the pods that run."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from tests.cluster.audit import Event, creates
from tests.cluster.client import Client, Done, Object
from tests.cluster.controlplane import ControlPlane
from tests.cluster.knative import make_service, pod_of, routed
from tests.cluster.namespace import MODE_LABEL, Namespace
from tests.support.until import until

Make = Callable[..., Namespace]

_NAMES_A_SECRET = {"morphisms.dev/secret-tls": "~/tls#certificate"}
_TOLD_TO = {"morphisms.dev/inject": "true"}
_PLAINTEXT = {"DB_PASSWORD": "hunter2-hunter2-Xx9"}

pytestmark = pytest.mark.usefixtures("knative", "morphisms")


@pytest.mark.parametrize(
    ("mode", "annotations", "confidential"),
    [
        (None, None, False),
        (None, _NAMES_A_SECRET, False),
        (None, _TOLD_TO, True),
        ("audit", None, False),
        ("audit", _NAMES_A_SECRET, True),
        ("inject", None, True),
        ("inject", _NAMES_A_SECRET, True),
        ("enforce", None, True),
        ("enforce", _NAMES_A_SECRET, True),
    ],
)
def test_which_pods_become_confidential(
    cluster: ControlPlane, namespace: Make, mode: str | None, annotations: dict[str, str] | None, confidential: bool
) -> None:
    here = namespace(mode)
    cluster.user("dev").apply(make_service("web", here, annotations=annotations))
    pod = pod_of(here, "web")
    assert (pod["spec"].get("runtimeClassName") == "kata-qemu-snp") is confidential
    assert ("morphisms-init" in _init_containers(pod)) is confidential
    if confidential:
        assert pod["spec"]["nodeName"].startswith("snp-")


def _init_containers(pod: Object) -> list[str]:
    return [container["name"] for container in pod["spec"].get("initContainers", ())]


def test_without_the_label_a_secret_annotation_alone_gets_a_warning(cluster: ControlPlane, namespace: Make) -> None:
    done = cluster.user("dev").apply(make_service("web", namespace(), annotations=_NAMES_A_SECRET))
    (warning,) = _ours(done)
    assert MODE_LABEL in warning
    assert 'annotate the template with morphisms.dev/inject: "true"' in warning
    assert _ours(cluster.user("dev").apply(make_service("told", namespace(), annotations=_TOLD_TO))) == []


def _ours(done: Done) -> list[str]:
    """Warnings but for Knative's own."""
    return [warning for warning in done.warnings if "Knative" not in warning]


@pytest.mark.parametrize("mode", ["audit", "inject"])
def test_plaintext_secrets_are_warned_of_before_enforce(cluster: ControlPlane, namespace: Make, mode: str) -> None:
    done = cluster.user("dev").apply(make_service("web", namespace(mode), env=_PLAINTEXT))
    assert [warning.partition("]")[0] for warning in _ours(done)] == ["[secrets/plaintext-env", "[secrets/last-applied"]
    assert "hunter2" not in done.err


def test_plaintext_secrets_are_refused_in_enforce(cluster: ControlPlane, namespace: Make) -> None:
    here = namespace("enforce")
    done = cluster.user("dev").kubectl("apply", "-f", "-", input=make_service("web", here, env=_PLAINTEXT), check=False)
    assert done.code == 1
    assert "[secrets/plaintext-env] env DB_PASSWORD of container user-container" in done.err
    assert "hunter2" not in done.err
    assert cluster.admin.items(here.services()) == []


def test_audit_records_what_injection_would_mend_and_what_must_change(cluster: ControlPlane, namespace: Make) -> None:
    here = namespace("audit")
    mark = cluster.audit.mark()
    for name, env in (("mended", {}), ("must-change", _PLAINTEXT)):
        cluster.user("dev").apply(make_service(name, here, env=env))
    mended, must_change = (_judgement(cluster, here, pod_of(here, name), mark) for name in ("mended", "must-change"))
    assert "placement/runtime-class" in mended["fixed-by-injection"]
    assert "must-change" not in mended
    assert must_change["must-change"] == "secrets/plaintext-env"
    assert must_change["would-deny"]


def _judgement(cluster: ControlPlane, here: Namespace, pod: Object, mark: int) -> Mapping[str, str]:
    """What `/validate/pod` noted in the API server's audit log."""

    def fits(event: Event) -> bool:
        uid = pod["metadata"]["uid"]
        return creates(event, "pods", here.name) and event["responseObject"]["metadata"].get("uid") == uid

    notes = cluster.audit.until(fits, mark)["annotations"]
    return {key.partition("/")[2]: value for key, value in notes.items() if key.startswith("validate-pod.audit.")}


def test_a_namespace_that_moves_to_audit_keeps_what_works(cluster: ControlPlane, namespace: Make) -> None:
    here = namespace("inject")
    cluster.user("dev").apply(make_service("web", here, annotations=_NAMES_A_SECRET))
    first = pod_of(here, "web")
    here.label("audit")
    cluster.admin.delete(here.pods(first["metadata"]["name"]), gracePeriodSeconds="0")
    again = pod_of(here, "web", besides={first["metadata"]["uid"]})
    assert again["spec"]["runtimeClassName"] == "kata-qemu-snp"
    assert _init_containers(again) == ["morphisms-init"]


def test_tightening_names_the_revisions_that_would_fail(cluster: ControlPlane, namespace: Make) -> None:
    here = namespace("inject")
    for name, env in (("good", {}), ("bad", _PLAINTEXT)):
        cluster.user("dev").apply(make_service(name, here, env=env))
        pod_of(here, name)
    routed(here, "good-00001", "bad-00001")
    done = _platform(cluster).kubectl("label", "namespace", here.name, f"{MODE_LABEL}=enforce", "--overwrite")
    assert done.warnings == [
        "[mode] 1 of 2 workloads would be refused at their next start in mode enforce:",
        "[mode] Revision/bad-00001: secrets/plaintext-env",
    ]
    # And that is what happens, with the reason where Knative's users look.
    for name in ("good", "bad"):
        pod = pod_of(here, name)
        cluster.admin.delete(here.pods(pod["metadata"]["name"]), gracePeriodSeconds="0")
        if name == "good":
            pod_of(here, name, besides={pod["metadata"]["uid"]})
    failure = cluster.admin.until(here.deployments(), _replica_failure)
    assert "secrets/plaintext-env" in failure["message"]
    assert "hunter2" not in failure["message"]


def _replica_failure(deployments: list[Object]) -> Object | None:
    conditions = (condition for item in deployments for condition in item.get("status", {}).get("conditions", ()))
    return next((condition for condition in conditions if condition["type"] == "ReplicaFailure"), None)


@pytest.mark.parametrize("looser", ["inject", "audit", None])
def test_loosening_takes_the_verb(cluster: ControlPlane, namespace: Make, looser: str | None) -> None:
    here = namespace("enforce")
    change = f"{MODE_LABEL}={looser}" if looser else f"{MODE_LABEL}-"
    done = _platform(cluster).kubectl("label", "namespace", here.name, change, "--overwrite", check=False)
    assert done.code == 1
    assert "needs the verb loosen on modes.morphisms.dev" in done.err
    allowed = cluster.user("loosener")
    _bind(cluster.admin, here, "morphisms-loosen", "loosener")
    _bind(cluster.admin, here, "admin", "loosener")
    _grant(cluster, "loosener")
    until(lambda: allowed.can("loosen", "modes", here.name, group="morphisms.dev"))
    assert allowed.kubectl("label", "namespace", here.name, change, "--overwrite").code == 0


def _platform(cluster: ControlPlane) -> Client:
    """Somebody who may label namespaces."""
    _grant(cluster, "platform")
    return cluster.user("platform")


def _grant(cluster: ControlPlane, user: str) -> None:
    rules = [{"apiGroups": [""], "resources": ["namespaces"], "verbs": ["get", "patch", "update"]}]
    cluster.admin.apply(
        {"apiVersion": f"{_RBAC}/v1", "kind": "ClusterRole", "metadata": {"name": "label-namespaces"}, "rules": rules},
        {
            "apiVersion": f"{_RBAC}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": f"label-namespaces-{user}"},
            "roleRef": {"apiGroup": _RBAC, "kind": "ClusterRole", "name": "label-namespaces"},
            "subjects": [{"apiGroup": _RBAC, "kind": "User", "name": user}],
        },
    )
    until(lambda: cluster.user(user).can("patch", "namespaces"))


def _bind(admin: Client, here: Namespace, role: str, user: str) -> None:
    admin.apply(
        {
            "apiVersion": f"{_RBAC}/v1",
            "kind": "RoleBinding",
            "metadata": {"name": f"{role}-{user}", "namespace": here.name},
            "roleRef": {"apiGroup": _RBAC, "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": _RBAC, "kind": "User", "name": user}],
        }
    )


_RBAC = "rbac.authorization.k8s.io"
