"""Whatever preflight calls ready, enforce admits; whatever it calls not ready, enforce denies, with the same rules.

A namespace of generated workloads of every kind; the controllers that make their pods are written here by hand, and an
oracle that knows nothing of the rules judges each admitted pod too.
"""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from cli.preflight.checks import workloads
from cli.preflight.lines import State, is_go
from tests.webhook.properties import rfc6902
from tests.webhook.properties.oracle import faults
from tests.webhook.properties.pods import careful_pods, pods
from tests.webhook.properties.worlds import CLUSTERS, NAMESPACE, WORLDS, World, review, worlds
from webhook.decide import decide
from webhook.decision import Decision
from webhook.modes import Mode
from webhook.review import read_review
from webhook.scanner.evaluation import Evaluator
from webhook.scanner.kinds import counts

Json = dict[str, Any]

_SYSTEM = "system:serviceaccount:kube-system:"
# Kind -> apiVersion, and the account and the kind of the object that makes the pods.
_KINDS = {
    "Deployment": ("apps/v1", "replicaset-controller", ("apps/v1", "ReplicaSet")),
    "ReplicaSet": ("apps/v1", "replicaset-controller", ("apps/v1", "ReplicaSet")),
    "StatefulSet": ("apps/v1", "statefulset-controller", ("apps/v1", "StatefulSet")),
    "DaemonSet": ("apps/v1", "daemon-set-controller", ("apps/v1", "DaemonSet")),
    "Job": ("batch/v1", "job-controller", ("batch/v1", "Job")),
    "CronJob": ("batch/v1", "job-controller", ("batch/v1", "Job")),
    "ReplicationController": ("v1", "replication-controller", ("v1", "ReplicationController")),
    "Pod": ("v1", "", ("", "")),
}
_NOW = datetime(2027, 1, 1, tzinfo=UTC)
_LAST = "kubectl.kubernetes.io/last-applied-configuration"


def _workload(kind: str, pod: Json) -> Json:
    """An object of the kind whose pods are like this one."""
    version, _, _ = _KINDS[kind]
    metadata = {"name": "payments", "namespace": NAMESPACE}
    own = {key: value for key, value in pod["metadata"].items() if key in ("labels", "annotations")}
    if kind == "Pod":
        return {**copy.deepcopy(pod), "metadata": {**metadata, **copy.deepcopy(own)}}
    template = copy.deepcopy({"metadata": own, "spec": pod["spec"]})
    spec: Json = {"template": template, "replicas": 1}
    if kind == "CronJob":
        spec = {"jobTemplate": {"spec": {"template": template}}}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec}


def _made(kind: str, pod: Json) -> tuple[Json, str]:
    """The pod that the kind's controller makes, and the user that it is."""
    _, account, (version, owner) = _KINDS[kind]
    made = {"apiVersion": "v1", "kind": "Pod", "spec": copy.deepcopy(pod["spec"])}
    metadata = {key: copy.deepcopy(pod["metadata"][key]) for key in ("labels", "annotations") if key in pod["metadata"]}
    if kind == "Pod":
        # It is deleted and applied again, so its node is not set any more.
        made["spec"].pop("nodeName", None)
        made["spec"].pop("ephemeralContainers", None)
        return {**made, "metadata": {"name": "payments", "namespace": NAMESPACE, **metadata}}, "author"
    name = {"Deployment": "payments-7c9f", "CronJob": "payments-29000000"}.get(kind, "payments")
    if kind == "Deployment":
        metadata["labels"] = {**(metadata.get("labels") or {}), "pod-template-hash": "7c9f"}
    reference = {"apiVersion": version, "kind": owner, "name": name, "uid": "u", "controller": True}
    made["metadata"] = {"generateName": f"{name}-", "namespace": NAMESPACE, "ownerReferences": [reference], **metadata}
    return made, _SYSTEM + account


def _asked(pod: Json, user: str, path: str, world: World) -> Decision:
    snapshot = replace(CLUSTERS[Mode.ENFORCE], now=_NOW)
    return decide(read_review(review(pod, path, user=user), path), world.configuration, snapshot)


def _enforced(kind: str, pod: Json, world: World) -> tuple[Decision, Json]:
    """What enforce answers to the kind's next pod, and the pod."""
    made, user = _made(kind, pod)
    decision = _asked(made, user, "/mutate/pod", world)
    if not decision.allowed:
        return decision, made
    after = json.loads(json.dumps(rfc6902.apply(made, decision.operations)))
    return _asked(after, user, "/validate/pod", world), after


_namespaces = st.lists(st.tuples(st.sampled_from(sorted(_KINDS)), st.one_of(pods(), careful_pods())), max_size=4)


def test_what_preflight_says_of_a_namespace_is_what_enforce_does() -> None:
    admitted_kinds: set[str] = set()
    denied_kinds: set[str] = set()
    denying_rules: set[str] = set()

    @settings(max_examples=150, derandomize=True, deadline=None, phases=[Phase.generate], report_multiple_bugs=False)
    @given(_namespaces, worlds)
    def law(namespace: list[tuple[str, Json]], world: World) -> None:
        evaluator = Evaluator(world.configuration, replace(CLUSTERS[Mode.AUDIT], now=_NOW))
        every, all_admitted = [], True
        for kind, pod in namespace:
            item = _workload(kind, pod)
            assert counts(item)
            evaluation = evaluator.evaluate(item, target=Mode.ENFORCE)
            assert evaluation is not None
            lines = list(workloads([evaluation], Mode.ENFORCE))
            every += lines
            decision, after = _enforced(kind, pod, world)
            all_admitted &= decision.allowed
            assert is_go(lines, allow_unevaluated=False) == decision.allowed, (kind, lines, decision.denial)
            said = {line.text.partition("[")[2].partition("]")[0] for line in lines if line.state is State.FAILED}
            if decision.denial is None:
                assert faults(after, world) == []
                admitted_kinds.add(kind)
                continue
            denied = {each.reason for each in decision.denial.causes}
            # A pod that cannot be injected is refused for that alone, before the other rules are evaluated.
            assert denied <= said if decision.reason == "cannot-inject" else denied == said, (kind, denied, said)
            denied_kinds.add(kind)
            denying_rules.update(said)
        assert is_go(every, allow_unevaluated=False) == all_admitted

    law()
    # Both answers were given for each kind; rules that the generators rarely reach are in the table below.
    assert admitted_kinds == denied_kinds == set(_KINDS)
    assert len(denying_rules) >= 15, sorted(denying_rules)


_IMAGE = "registry.example/app@sha256:" + "a" * 64
_TOKEN = "ghp_" + "Zx81kQ" * 6
# What the generators rarely or never make: rule -> members of the pod's spec, of its container, and annotations.
_TABLE: dict[str, tuple[Json, Json, Json]] = {
    "placement/runtime-class": ({"runtimeClassName": "gvisor"}, {}, {}),
    "isolation/user-namespace": ({"hostUsers": False}, {}, {}),
    "isolation/capabilities": ({}, {"securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}}}, {}),
    "isolation/confinement": ({}, {"securityContext": {"seccompProfile": {"type": "Unconfined"}}}, {}),
    "secrets/plaintext-fields": ({}, {"args": [f"--token={_TOKEN}"]}, {}),
    "secrets/kubernetes-secret-volume": (
        {"volumes": [{"name": "x", "secret": {"secretName": "x"}}]},
        {"volumeMounts": [{"name": "x", "mountPath": "/x"}]},
        {},
    ),
    "secrets/last-applied": ({}, {}, {_LAST: json.dumps({"env": [{"name": "DB_PASSWORD", "value": _TOKEN}]})}),
    "secrets/on-change": (
        {},
        {},
        {
            "morphisms.dev/secret-db": "secret/shop/db#x",
            "morphisms.dev/agent": "sidecar",
            "morphisms.dev/on-change": "signal:SIGHUP:app",
        },
    ),
    "secrets/node-fetched": (
        {"volumes": [{"name": "x", "csi": {"driver": "secrets-store.csi.k8s.io"}}]},
        {},
        {},
    ),
}


def _pod_of(rule: str) -> Json:
    spec, container, annotations = _TABLE[rule]
    containers = [{"name": "app", "image": _IMAGE, **container}]
    metadata = {"annotations": annotations}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": containers, **spec}}


@pytest.mark.parametrize("kind", sorted(_KINDS))
@pytest.mark.parametrize("rule", sorted(_TABLE))
def test_each_rule_denies_and_preflight_says_so(rule: str, kind: str) -> None:
    pod, world = _pod_of(rule), WORLDS[0]
    evaluation = Evaluator(world.configuration, replace(CLUSTERS[Mode.AUDIT], now=_NOW)).evaluate(
        _workload(kind, pod), target=Mode.ENFORCE
    )
    assert evaluation is not None
    lines = list(workloads([evaluation], Mode.ENFORCE))
    decision, _ = _enforced(kind, pod, world)
    assert decision.denial is not None
    assert {each.reason for each in decision.denial.causes} == {rule}
    assert {line.text.partition("[")[2].partition("]")[0] for line in lines if line.state is State.FAILED} == {rule}
    assert not is_go(lines, allow_unevaluated=True)
