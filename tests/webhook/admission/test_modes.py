"""The table of modes, for pods that opt in, pods that opt out, and others."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from typing import Any

import pytest

from tests.support.paths import REVIEWS
from webhook.configuration.model import Configuration
from webhook.decide import decide
from webhook.modes import Mode
from webhook.request import Request
from webhook.review import read_review
from webhook.snapshot import RuntimeClassRecord, Snapshot

_POD = "pods-create-payments-by-replicaset-controller.json"
_CLASSES = {"kata-qemu-snp": RuntimeClassRecord("kata-qemu-snp", "kata-qemu-snp")}


def _request(path: str, annotations: dict[str, str], **spec: Any) -> Request:
    review = json.loads((REVIEWS / _POD).read_text())
    pod = review["request"]["object"]
    pod["metadata"]["annotations"].update({f"morphisms.dev/{key}": value for key, value in annotations.items()})
    pod["spec"].update(spec)
    pod["spec"]["containers"][0]["env"] = []
    return read_review(json.dumps(review).encode(), path)


def _snapshot(mode: Mode, **changes: Any) -> Snapshot:
    return replace(Snapshot({"default": mode}, {}, _CLASSES), **changes)


_ASKS, _OTHER, _OUT = {"inject": "true"}, dict[str, str](), {"inject": "false"}


@pytest.mark.parametrize(
    ("mode", "annotations", "outcome"),
    [
        (Mode.ABSENT, _ASKS, "mutated"),
        (Mode.ABSENT, {"secret-db": "secret/shop/db"}, "unchanged"),
        (Mode.ABSENT, _OTHER, "unchanged"),
        (Mode.AUDIT, _ASKS, "mutated"),
        (Mode.AUDIT, {"secret-db": "secret/shop/db"}, "mutated"),
        (Mode.AUDIT, _OTHER, "unchanged"),
        (Mode.AUDIT, _OUT, "unchanged"),
        (Mode.INJECT, _ASKS, "mutated"),
        (Mode.INJECT, _OTHER, "mutated"),
        (Mode.INJECT, _OUT, "unchanged"),
        (Mode.ENFORCE, _ASKS, "mutated"),
        (Mode.ENFORCE, _OTHER, "mutated"),
        (Mode.ENFORCE, _OUT, "mutated"),
    ],
)
def test_the_mode_and_the_opt_in_decide_whether_a_pod_is_injected(
    mode: Mode, annotations: dict[str, str], outcome: str
) -> None:
    assert decide(_request("/mutate/pod", annotations), Configuration(), _snapshot(mode)).outcome == outcome


@pytest.mark.parametrize(
    ("mode", "annotations", "outcome"),
    [
        (Mode.ABSENT, _ASKS, "denied"),
        (Mode.ABSENT, _OTHER, "unchanged"),
        (Mode.AUDIT, _ASKS, "denied"),
        (Mode.AUDIT, _OTHER, "unchanged"),
        (Mode.INJECT, _ASKS, "denied"),
        (Mode.INJECT, _OTHER, "unchanged"),
        (Mode.ENFORCE, _OTHER, "denied"),
        (Mode.ENFORCE, _OUT, "denied"),
    ],
)
def test_a_pod_that_opts_in_is_denied_if_it_cannot_be_injected(
    mode: Mode, annotations: dict[str, str], outcome: str
) -> None:
    request = _request("/mutate/pod", annotations, nodeName="plain-0")
    assert decide(request, Configuration(), _snapshot(mode)).outcome == outcome


@pytest.mark.parametrize(
    ("mode", "allowed"), [(Mode.ABSENT, True), (Mode.AUDIT, True), (Mode.INJECT, True), (Mode.ENFORCE, False)]
)
def test_violations_of_pods_that_do_not_opt_in_are_denied_only_in_enforce(mode: Mode, allowed: bool) -> None:
    decision = decide(_request("/validate/pod", _OTHER), Configuration(), _snapshot(mode))
    assert decision.allowed is allowed
    assert bool(decision.violations) is (mode is not Mode.ABSENT)


def test_no_configured_action_lets_a_pod_opt_in_and_violate_a_rule_that_injection_needs() -> None:
    configuration = Configuration.model_validate({"rules": {"placement/node-name": {"inject": "ignore"}}})
    request = _request("/validate/pod", _ASKS, nodeName="plain-0")
    assert not decide(request, configuration, _snapshot(Mode.INJECT)).allowed


def test_mutation_and_validation_follow_the_same_configured_action() -> None:
    configuration = Configuration.model_validate({"rules": {"isolation/host-namespaces": {"enforce": "record"}}})
    request = _request("/mutate/pod", _OTHER, hostPID=True)
    assert decide(request, configuration, _snapshot(Mode.ENFORCE)).outcome == "mutated"


@pytest.mark.parametrize("path", ["/mutate/pod", "/validate/pod"])
def test_a_stale_view_refuses_only_in_enforce(path: str) -> None:
    for mode in (Mode.AUDIT, Mode.INJECT):
        assert decide(_request(path, _OTHER), Configuration(), _snapshot(mode, age_seconds=301.0)).allowed
    decision = decide(_request(path, _OTHER), Configuration(), _snapshot(Mode.ENFORCE, age_seconds=301.0))
    assert decision.denial is not None
    assert (decision.denial.code, decision.reason) == (503, "stale-snapshot")
    assert "301 s old" in decision.denial.message


def test_rules_that_need_the_cluster_are_not_evaluated_without_one() -> None:
    decision = decide(_request("/mutate/pod", _ASKS), Configuration(), None)
    assert decision.outcome == "mutated"
    assert decision.audit["not-evaluated"] == "placement/runtime-handler,placement/binding-target"


def test_a_mirror_pod_is_exempt_only_if_its_own_kubelet_creates_it() -> None:
    request = _request("/validate/pod", _OTHER, nodeName="n1")
    request.object["metadata"]["annotations"]["kubernetes.io/config.mirror"] = "x"  # type: ignore[index]
    node = replace(request.user, name="system:node:n1", groups=("system:nodes",))
    assert decide(replace(request, user=node), Configuration(), _snapshot(Mode.ENFORCE)).reason == "mirror-pod"
    assert not decide(request, Configuration(), _snapshot(Mode.ENFORCE)).allowed
    other = replace(node, name="system:node:n2")
    assert not decide(replace(request, user=other), Configuration(), _snapshot(Mode.ENFORCE)).allowed


def test_an_update_is_refused_only_for_violations_that_it_adds() -> None:
    request = _request("/validate/pod", _OTHER)
    old = copy.deepcopy(request.object)
    same = replace(request, operation="UPDATE", old_object=old)
    assert decide(same, Configuration(), _snapshot(Mode.ENFORCE)).violations == ()
    changed = copy.deepcopy(old)
    assert changed is not None
    changed["spec"]["containers"][0]["image"] = "example.com/other@sha256:" + "0" * 64
    changed["metadata"]["annotations"]["morphisms.dev/inject"] = "false"
    decision = decide(replace(same, object=changed), Configuration(), _snapshot(Mode.ENFORCE))
    assert {violation.rule.id for violation in decision.violations} == {
        "images/replaced",
        "isolation/annotation-change",
    }


def test_platform_images_may_have_tags_if_configured() -> None:
    proxy = {"name": "istio-proxy", "image": "mesh.example/istio/proxyv2:1.26"}
    request = _request("/validate/pod", _OTHER)
    assert request.object is not None
    request.object["spec"]["containers"].append(proxy)
    for globs, found in (([], True), (["mesh.example/istio/proxyv2:*"], False)):
        configuration = Configuration.model_validate({"platformImages": globs})
        decision = decide(request, configuration, _snapshot(Mode.ENFORCE))
        assert ("images/digest" in {violation.rule.id for violation in decision.violations}) is found
