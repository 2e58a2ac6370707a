"""Laws of morphisms-kms: nothing is admitted there but the key server's own pod, confidential and never injected."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import yaml
from hypothesis import event, given, settings
from hypothesis import strategies as st

from tests.support.paths import ROOT
from tests.webhook.properties import rfc6902
from tests.webhook.properties.oracle import key_server_faults
from tests.webhook.properties.pods import pods
from tests.webhook.properties.worlds import CLUSTERS, WORLDS, World, review, worlds
from webhook.decide import decide
from webhook.decision import Decision
from webhook.modes import Mode
from webhook.review import read_review

Json = dict[str, Any]

NAMESPACE = "morphisms-kms"
KEEPER = "system:serviceaccount:kube-system:statefulset-controller"
OWNER = {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "morphisms-verifier", "uid": "u", "controller": True}

owners = st.sampled_from(
    [
        [OWNER],
        [OWNER],
        [OWNER],
        None,
        [],
        [{**OWNER, "controller": False}],
        [{**OWNER, "name": "other"}],
        [{**OWNER, "kind": "ReplicaSet"}],
        [{**OWNER, "apiVersion": "example.com/v1"}],
        [OWNER, {**OWNER, "name": "other"}],
    ]
)
users = st.sampled_from(
    [KEEPER, KEEPER, KEEPER, "system:kube-controller-manager", "alice", "system:serviceaccount:a:b"]
)


def _ask(pod: Json, path: str, world: World, user: str) -> Decision:
    snapshot = replace(CLUSTERS[Mode.ENFORCE], namespaces={NAMESPACE: Mode.ENFORCE})
    request = read_review(review(pod, path, namespace=NAMESPACE, user=user), path)
    return decide(request, world.configuration, snapshot)


@settings(max_examples=200)
@given(pods(), worlds, owners, users, st.booleans())
def test_what_is_admitted_beside_the_key_server_is_the_key_server(
    pod: Json, world: World, owner: list[Json] | None, user: str, plain: bool
) -> None:
    if owner is not None:
        pod["metadata"]["ownerReferences"] = owner
    if (
        plain
    ):  # What the StatefulSet of manifests/overlays/kms-in-guests looks like: no reference, no annotation of ours.
        pod["metadata"].pop("annotations", None)
        for container in (*(pod["spec"].get("initContainers") or ()), *pod["spec"]["containers"]):
            container.pop("env", None)
    mutated = _ask(pod, "/mutate/pod", world, user)
    after = json.loads(json.dumps(rfc6902.apply(pod, mutated.operations) if mutated.allowed else pod))
    for candidate in (pod, after):
        admitted = _ask(candidate, "/validate/pod", world, user).allowed
        event(f"admitted: {admitted}")
        if admitted:
            assert key_server_faults(candidate, user) == []


def _overlays_pod() -> Json:
    """The pod that the overlay's StatefulSet makes, its images by digest."""
    path = ROOT / "manifests" / "overlays" / "kms-in-guests" / "statefulset.yaml"
    template: Json = yaml.safe_load(path.read_text())["spec"]["template"]
    for container in template["spec"]["containers"]:
        container["image"] += "@sha256:" + "d" * 64
    template["spec"]["volumes"].append({"name": "raft", "persistentVolumeClaim": {"claimName": "raft-0"}})
    template["metadata"] |= {"name": "morphisms-verifier-0", "ownerReferences": [OWNER]}
    return template


def _set(path: str, value: Any) -> Callable[[Json], None]:
    """Sets a member of the pod; None takes it away."""

    def change(pod: Json) -> None:
        *steps, last = path.split("/")
        here: Any = pod
        for step in steps:
            here = here[int(step)] if isinstance(here, list) else here.setdefault(step, {})
        if value is None:
            del here[last]
        elif isinstance(here.get(last), list):
            here[last] = [*here[last], *value]
        else:
            here[last] = value

    return change


_CONTAINER = "spec/containers/1"
_TERMS = "spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms"
_OTHER_NODES = [{"matchExpressions": [{"key": "kubernetes.io/os", "operator": "Exists"}]}]
WEAKER: dict[str, Callable[[Json], None]] = {
    "host-network": _set("spec/hostNetwork", True),
    "host-processes": _set("spec/hostPID", True),
    "host-ipc": _set("spec/hostIPC", True),
    "host-path": _set("spec/volumes", [{"name": "here", "hostPath": {"path": "/srv"}}]),
    "debug-container": _set("spec/ephemeralContainers", [{"name": "debug", "image": "x"}]),
    "privileged": _set(f"{_CONTAINER}/securityContext/privileged", True),
    "capability": _set(f"{_CONTAINER}/securityContext/capabilities/add", ["SYS_ADMIN"]),
    "unconfined": _set(f"{_CONTAINER}/securityContext/seccompProfile", {"type": "Unconfined"}),
    "uncovered-proc": _set(f"{_CONTAINER}/securityContext/procMount", "Unmasked"),
    "shared-processes": _set("spec/shareProcessNamespace", True),
    "preset-node": _set("spec/nodeName", "plain-0"),
    "no-runtime-class": _set("spec/runtimeClassName", None),
    "another-runtime-class": _set("spec/runtimeClassName", "kata-remote"),
    "no-affinity": _set("spec/affinity", None),
    "another-node-too": _set(_TERMS, _OTHER_NODES),
    "another-scheduler": _set("spec/schedulerName", "mine"),
    "injected": _set("spec/initContainers", [{"name": "morphisms-init", "image": "x@sha256:" + "a" * 64}]),
    "image-by-tag": _set(f"{_CONTAINER}/image", "openbao/openbao:latest"),
    "secret-variable": _set(
        f"{_CONTAINER}/env", [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]
    ),
    "plaintext": _set(f"{_CONTAINER}/env", [{"name": "ROOT_PASSWORD", "value": "Tr0ub4dor&3-x9"}]),
    "reference": _set(f"{_CONTAINER}/env", [{"name": "A", "value": "vault:~/db#password"}]),
    "hypervisor": _set("metadata/annotations/io.katacontainers.config.hypervisor.kernel_params", "debug"),
    "names-a-secret": _set("metadata/annotations/morphisms.dev|secret-db", "secret/shop/db#password"),
    "another-profile": _set("metadata/annotations/morphisms.dev|profile", "kata-snp"),
    "no-owner": _set("metadata/ownerReferences", None),
}


@pytest.mark.parametrize("world", WORLDS, ids=repr)
def test_the_overlays_pod_is_admitted_whatever_the_configuration(world: World) -> None:
    pod = _overlays_pod()
    assert key_server_faults(pod, KEEPER) == []
    for user in (KEEPER, "system:kube-controller-manager"):
        decision = _ask(pod, "/validate/pod", world, user)
        assert decision.allowed, decision.denial


@pytest.mark.parametrize("weaker", WEAKER)
@pytest.mark.parametrize("world", WORLDS, ids=repr)
def test_each_weaker_pod_of_the_key_server_is_refused(world: World, weaker: str) -> None:
    pod = _overlays_pod()
    WEAKER[weaker](pod)
    pod["metadata"]["annotations"] = {
        key.replace("|", "/"): value for key, value in (pod["metadata"].get("annotations") or {}).items()
    }
    assert not _ask(pod, "/validate/pod", world, KEEPER).allowed
