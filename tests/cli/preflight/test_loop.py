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
from cli.preflight.lines import Line, State, is_go
from plan.layout import HEALTH_PORT
from tests.webhook.properties import rfc6902
from tests.webhook.properties.oracle import faults
from tests.webhook.properties.pods import careful_pods, pods
from tests.webhook.properties.worlds import CLUSTERS, NAMESPACE, WORLDS, World, review, worlds
from webhook.decide import decide
from webhook.decision import Decision
from webhook.modes import Mode
from webhook.review import read_review
from webhook.rules import POD
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
    "Service": ("serving.knative.dev/v1", "replicaset-controller", ("apps/v1", "ReplicaSet")),
    "Revision": ("serving.knative.dev/v1", "replicaset-controller", ("apps/v1", "ReplicaSet")),
}
_KNATIVE = ("Service", "Revision")
_QUEUE_PROXY = {
    "name": "queue-proxy",
    "image": "gcr.example/queue@sha256:" + "b" * 64,
    "ports": [{"name": "queue-port", "containerPort": 8012}],
    "env": [{"name": "SERVING_NAMESPACE", "value": "shop"}, {"name": "USER_PORT", "value": "8080"}],
    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
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
    if kind == "Revision":
        labels = {**(own.get("labels") or {}), **_knative_labels(), "serving.knative.dev/routingState": "active"}
        metadata = {**metadata, **template["metadata"], "name": "payments-00001", "labels": labels}
        return {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": template["spec"]}
    spec: Json = {"template": template, "replicas": 1}
    if kind == "CronJob":
        spec = {"jobTemplate": {"spec": {"template": template}}}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec}


def _knative_labels() -> Json:
    names = {"service": "payments", "configuration": "payments", "revision": "payments-00001"}
    return {f"serving.knative.dev/{key}": value for key, value in names.items()}


def _as_knative(made: Json) -> None:
    """What Knative adds to the template of a Revision; the one container with a port is the one that serves."""
    containers = made["spec"]["containers"]
    serving = next((each for each in containers if each.get("ports")), containers[0])
    for each in containers:
        # It resolves a tag once, for the Revision.
        image = each["image"]
        each["image"] = image if "@" in image else f"{image.rpartition(':')[0]}@sha256:{'c' * 64}"
    serving["ports"] = [{"containerPort": 8080, **(serving.get("ports") or [{}])[0], "name": "user-port"}]
    containers.append(copy.deepcopy(_QUEUE_PROXY))
    made["metadata"]["labels"] = {**(made["metadata"].get("labels") or {}), **_knative_labels()}


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
    if kind in ("Deployment", *_KNATIVE):
        metadata["labels"] = {**(metadata.get("labels") or {}), "pod-template-hash": "7c9f"}
    reference = {"apiVersion": version, "kind": owner, "name": name, "uid": "u", "controller": True}
    made["metadata"] = {"generateName": f"{name}-", "namespace": NAMESPACE, "ownerReferences": [reference], **metadata}
    if kind in _KNATIVE:
        reference["name"] = "payments-00001-deployment-7c9f"
        made["metadata"]["generateName"] = f"{reference['name']}-"
        _as_knative(made)
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
    "placement/profile": ({}, {}, {"morphisms.dev/profile": "no-such"}),
    "placement/node-name": ({"nodeName": "plain-0"}, {}, {}),
    "placement/operating-system": ({"os": {"name": "windows"}}, {}, {}),
    "placement/scheduler": ({"schedulerName": "own"}, {}, {}),
    "placement/reserved-nodes": (
        {"tolerations": [{"key": "node-role.kubernetes.io/control-plane", "operator": "Exists"}]},
        {},
        {},
    ),
    "isolation/host-namespaces": ({"hostNetwork": True}, {}, {}),
    "isolation/privileged": ({}, {"securityContext": {"privileged": True}}, {}),
    "isolation/host-path": (
        {"volumes": [{"name": "x", "hostPath": {"path": "/"}}]},
        {"volumeMounts": [{"name": "x", "mountPath": "/x"}]},
        {},
    ),
    "isolation/process-namespace": ({"shareProcessNamespace": True}, {}, {}),
    "isolation/hypervisor-annotations": ({}, {}, {"io.katacontainers.config.hypervisor.kernel": "/own"}),
    "isolation/foreign-mounts": ({}, {"volumeMounts": [{"name": "morphisms-secrets", "mountPath": "/x"}]}, {}),
    "isolation/reserved-names": ({}, {"ports": [{"containerPort": HEALTH_PORT}]}, {}),
    "secrets/volumes": ({"volumes": [{"name": "morphisms-secrets", "emptyDir": {}}]}, {}, {}),
    "isolation/initdata": ({}, {}, {"io.katacontainers.config.hypervisor.cc_init_data": "x"}),
    "secrets/annotations": ({}, {}, {"morphisms.dev/secret-db": "nowhere"}),
    "secrets/references": (
        {},
        {"command": ["/app"], "env": [{"name": "A", "value": "vault:secret/db"}]},
        {"morphisms.dev/inject": "true"},
    ),
    "secrets/leased": ({}, {}, {"morphisms.dev/secret-db": "database/creds/shop"}),
    "secrets/consumers": ({}, {}, {"morphisms.dev/secret-db": "secret/db#x", "morphisms.dev/containers": "other"}),
    "secrets/foreign-injector": ({}, {}, {"vault.hashicorp.com/agent-inject": "true"}),
    "secrets/plaintext-env": ({}, {"env": [{"name": "DB_PASSWORD", "value": _TOKEN}]}, {}),
    "secrets/kubernetes-secret-env": ({}, {"envFrom": [{"secretRef": {"name": "x"}}]}, {}),
    "images/digest": ({}, {"image": "registry.example/app:1"}, {}),
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


# What a kind's own controller, or its next pod, corrects.
_CORRECTED = {
    "images/digest": _KNATIVE,
    "placement/node-name": ("Pod",),
}
# The rules that no next pod of these kinds can violate here, and why.
_NEVER_DENIED = {
    "placement/node-affinity": "injection sets it",
    "placement/runtime-handler": "of the cluster: `placement` has a line of its own",
    "secrets/init-container": "injection adds it",
    "isolation/ephemeral-containers": "of a running pod",
    "isolation/annotation-change": "of a running pod",
    "images/replaced": "of a running pod",
    "isolation/knative-labels": "of a claim: the law above has pods with such labels",
    "isolation/key-server": "of the key server's namespace: tests/webhook/properties/test_key_server.py",
    "isolation/measured-pod": "of measured pods: tests/webhook/properties/test_measured_services.py",
}


def test_every_rule_has_a_pod_that_violates_it_or_a_reason_why_none_can() -> None:
    assert sorted([*_TABLE, *_NEVER_DENIED]) == sorted(rule.id for rule in POD)


def _preflight(kind: str, pod: Json) -> list[Line]:
    evaluator = Evaluator(WORLDS[0].configuration, replace(CLUSTERS[Mode.AUDIT], now=_NOW))
    evaluation = evaluator.evaluate(_workload(kind, pod), target=Mode.ENFORCE)
    assert evaluation is not None
    return list(workloads([evaluation], Mode.ENFORCE))


def _plain(spec: Json, container: Json, annotations: Json) -> Json:
    containers = [{"name": "app", "image": _IMAGE, **container}]
    metadata = {"annotations": annotations}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": containers, **spec}}


@pytest.mark.parametrize("kind", sorted(_KINDS))
@pytest.mark.parametrize("rule", sorted(_TABLE))
def test_each_rule_denies_and_preflight_says_so(rule: str, kind: str) -> None:
    pod = _plain(*_TABLE[rule])
    lines = _preflight(kind, pod)
    decision, after = _enforced(kind, pod, WORLDS[0])
    if kind in _CORRECTED.get(rule, ()):
        assert (decision.denial, is_go(lines, allow_unevaluated=False)) == (None, True)
        assert faults(after, WORLDS[0]) == []
        return
    assert decision.denial is not None
    assert {each.reason for each in decision.denial.causes} == {rule}
    assert {line.text.partition("[")[2].partition("]")[0] for line in lines if line.state is State.FAILED} == {rule}
    assert not is_go(lines, allow_unevaluated=True)


@pytest.mark.parametrize("kind", sorted(_KINDS))
def test_without_what_the_table_adds_the_same_workload_is_ready_and_admitted(kind: str) -> None:
    pod = _plain({}, {}, {})
    decision, after = _enforced(kind, pod, WORLDS[0])
    assert (decision.denial, is_go(_preflight(kind, pod), allow_unevaluated=False)) == (None, True)
    assert faults(after, WORLDS[0]) == []
