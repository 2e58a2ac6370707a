"""A law of the scanner: a workload is ready for a mode just when admission admits its next pod in that mode."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.webhook.properties import rfc6902
from tests.webhook.properties.oracle import faults
from tests.webhook.properties.pods import pods
from tests.webhook.properties.worlds import CLUSTERS, NAMESPACE, World, review, worlds
from webhook.decide import decide
from webhook.decision import Decision
from webhook.modes import Mode
from webhook.review import read_review
from webhook.scanner.evaluation import UNREADABLE, Evaluator
from webhook.scanner.finding import Evaluation, FindingClass

Json = dict[str, Any]

_KINDS = {
    "Deployment": ("apps/v1", "replicaset-controller", ("apps/v1", "ReplicaSet", "web-0")),
    "ReplicaSet": ("apps/v1", "replicaset-controller", ("apps/v1", "ReplicaSet", "web")),
    "StatefulSet": ("apps/v1", "statefulset-controller", ("apps/v1", "StatefulSet", "web")),
    "DaemonSet": ("apps/v1", "daemon-set-controller", ("apps/v1", "DaemonSet", "web")),
    "Job": ("batch/v1", "job-controller", ("batch/v1", "Job", "web")),
    "CronJob": ("batch/v1", "job-controller", ("batch/v1", "Job", "web-00000000")),
}
_TARGETS = (Mode.AUDIT, Mode.INJECT, Mode.ENFORCE)


def _workload(kind: str, pod: Json) -> Json:
    """The workload of that kind whose template is the pod; the pod itself for a Pod."""
    metadata = {"name": "web", "namespace": NAMESPACE}
    if kind == "Pod":
        return {"apiVersion": "v1", "kind": "Pod", **pod, "metadata": {**pod["metadata"], **metadata}}
    template = {"metadata": pod["metadata"], "spec": pod["spec"]}
    spec = {"jobTemplate": {"spec": {"template": template}}} if kind == "CronJob" else {"template": template}
    return {"apiVersion": _KINDS[kind][0], "kind": kind, "metadata": metadata, "spec": spec}


def _next_pod(kind: str, workload: Json) -> tuple[Json, str]:
    """The pod that the kind's controller makes, and the controller."""
    if kind == "Pod":
        spec = {key: value for key, value in workload["spec"].items() if key not in ("nodeName", "ephemeralContainers")}
        return {**workload, "spec": spec}, "author"
    _, controller, (version, owner, name) = _KINDS[kind]
    spec = workload["spec"]["jobTemplate"]["spec"] if kind == "CronJob" else workload["spec"]
    metadata = dict(spec["template"]["metadata"])
    metadata["ownerReferences"] = [{"apiVersion": version, "kind": owner, "name": name, "controller": True}]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec["template"]["spec"]}
    return pod, f"system:serviceaccount:kube-system:{controller}"


def _admission(pod: Json, user: str, world: World, mode: Mode) -> tuple[Decision, Json]:
    """The decision that the API server acts on, and the pod that it would store."""
    for path in (f"/mutate/pod/{mode.path_segment}", f"/validate/pod/{mode.path_segment}"):
        request = read_review(review(pod, path, user=user), path)
        decision = decide(request, world.configuration, CLUSTERS[mode])
        if not decision.allowed:
            break
        pod = json.loads(json.dumps(rfc6902.apply(pod, decision.operations)))
    return decision, pod


def _evaluated(workload: Json, world: World, target: Mode) -> Evaluation:
    found = Evaluator(world.configuration, CLUSTERS[target]).evaluate(workload, target=target)
    assert found is not None
    return found


@pytest.mark.parametrize("target", _TARGETS, ids=str)
def test_a_workload_is_called_ready_just_when_admission_admits_its_next_pod(target: Mode) -> None:
    seen: Counter[bool] = Counter()

    @settings(max_examples=40)
    @given(pods(), st.sampled_from([*_KINDS, "Pod"]), worlds)
    def check(pod: Json, kind: str, world: World) -> None:
        workload = _workload(kind, pod)
        found = _evaluated(workload, world, target)
        made, user = _next_pod(kind, workload)
        decision, stored = _admission(made, user, world, target)
        seen[decision.allowed] += 1
        assert found.is_ready == decision.allowed
        if decision.denial is not None:
            rules = {cause.reason for cause in decision.denial.causes} or {UNREADABLE}
            assert rules <= {each.rule for each in found.denying}
        elif target is Mode.ENFORCE:
            assert faults(stored, world) == []
        else:
            recorded = {each.rule.id for each in decision.violations}
            assert found.exempt or recorded <= {each.rule for each in found.findings}

    check()
    assert seen[True], "no pod was admitted"
    assert seen[False], "no pod was refused"


@settings(max_examples=40)
@given(pods(), st.sampled_from([*_KINDS, "Pod"]), worlds)
def test_what_injection_fixes_is_not_there_after_injection_and_what_is_left_is_not_called_fixed(
    pod: Json, kind: str, world: World
) -> None:
    found = _evaluated(_workload(kind, pod), world, Mode.ENFORCE)
    fixed = {each.rule for each in found.findings if each.kind is FindingClass.FIXED_BY_INJECTION}
    assert fixed.isdisjoint(each.rule for each in found.denying)
    assert not any(each.denies for each in found.findings if each.kind is FindingClass.FIXED_BY_INJECTION)


@settings(max_examples=15)
@given(pods(), st.sampled_from([*_KINDS, "Pod"]), worlds)
def test_without_a_view_of_the_cluster_nothing_is_called_ready(pod: Json, kind: str, world: World) -> None:
    blind = Evaluator(world.configuration, None).evaluate(_workload(kind, pod))
    assert blind is not None
    if not blind.exempt:
        assert not blind.is_ready
        assert {each.rule for each in blind.not_evaluated} & {"placement/runtime-handler", UNREADABLE}


@settings(max_examples=15)
@given(pods(), st.sampled_from([*_KINDS, "Pod"]), worlds)
def test_an_evaluation_leaves_the_object_as_it_is(pod: Json, kind: str, world: World) -> None:
    workload = _workload(kind, pod)
    before = json.dumps(workload)
    evaluator = Evaluator(world.configuration, replace(CLUSTERS[Mode.ENFORCE]))
    assert evaluator.evaluate(workload) == evaluator.evaluate(workload)
    assert json.dumps(workload) == before
