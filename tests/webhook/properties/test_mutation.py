"""Laws of /mutate/pod."""

from __future__ import annotations

import base64
import copy
import json
import re
from typing import Any

import jsonpatch
import pytest
from hypothesis import assume, event, given
from hypothesis import strategies as st

from tests.webhook.properties import rfc6902
from tests.webhook.properties.oracle import expected_consumers, faults, is_reference, options_of, plan_of, texts
from tests.webhook.properties.pods import ARG_CANARY, ENV_CANARY, careful_pods, pods
from tests.webhook.properties.restricted import breaches, restrict
from tests.webhook.properties.worlds import CLUSTERS, NAMESPACE, World, ask, modes, pod_request, worlds
from webhook.decide import decide
from webhook.modes import Mode
from webhook.pod.pod import Pod
from webhook.review import write_review
from webhook.rewrite import rewrite

Json = dict[str, Any]
_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_TERMS = f"/spec/affinity/nodeAffinity/{_REQUIRED}/nodeSelectorTerms"

# Everything that a rewrite may touch, as JSON pointers.
_ALLOWED = re.compile(
    "|".join(
        (
            "/metadata(/annotations)?",
            "/metadata/annotations/morphisms.dev~1status",
            "/metadata/annotations/traffic.sidecar.istio.io~1exclude(Outbound|Inbound)Ports",
            "/metadata/annotations/config.linkerd.io~1skip-(outbound|inbound)-ports",
            "/metadata/annotations/traffic.kuma.io~1exclude-(outbound|inbound)-ports",
            "/spec/resources/(requests|limits)/(cpu|memory)",
            "/spec/(runtimeClassName|overhead)",
            "/spec/nodeSelector/[^/]+",
            f"/spec/affinity(/nodeAffinity(/{_REQUIRED})?)?",
            f"{_TERMS}/[0-9]+/matchExpressions(/[0-9]+)?",
            "/spec/(tolerations|initContainers|volumes|imagePullSecrets)(/[0-9]+)?",
            "/spec/securityContext(/fsGroup(ChangePolicy)?)?",
            "/spec/(initContainers|containers)/[0-9]+/volumeMounts(/[0-9]+)?",
            "/spec/(initContainers|containers)/[0-9]+/(command|args|env/[0-9]+)",
        )
    )
)


def _mutated(pod: Json, world: World, mode: Mode, *, offline: bool = False) -> tuple[Json, Any]:
    decision = ask(pod, "/mutate/pod", world, mode, offline=offline)
    event(f"{decision.outcome}: {decision.reason}")
    return rfc6902.apply(pod, decision.operations), decision


@given(pods(), worlds, modes, st.booleans())
def test_mutating_a_mutated_pod_changes_nothing(pod: Json, world: World, mode: Mode, offline: bool) -> None:
    after, decision = _mutated(pod, world, mode, offline=offline)
    if decision.allowed:
        again = ask(after, "/mutate/pod", world, mode, offline=offline)
        assert again.allowed
        assert list(again.operations) == []


@given(pods(), worlds, st.booleans())
def test_three_appliers_agree_and_the_original_is_untouched(pod: Json, world: World, offline: bool) -> None:
    before = copy.deepcopy(pod)
    patch = rewrite(Pod(pod, NAMESPACE, world.configuration), None if offline else CLUSTERS[Mode.INJECT])
    assert pod == before
    operations = json.loads(json.dumps(patch.operations))
    assert json.dumps(patch.result, sort_keys=True) == json.dumps(rfc6902.apply(pod, operations), sort_keys=True)
    assert patch.result == jsonpatch.apply_patch(before, operations)
    decide(pod_request(pod, "/mutate/pod"), world.configuration, CLUSTERS[Mode.ENFORCE])
    decide(pod_request(pod, "/validate/pod"), world.configuration, CLUSTERS[Mode.AUDIT])
    assert pod == before


@given(pods(), worlds, modes)
def test_a_mutated_pod_violates_no_rule_that_injection_needs(pod: Json, world: World, mode: Mode) -> None:
    after, decision = _mutated(pod, world, mode)
    assume(decision.outcome == "mutated")
    verdict = ask(after, "/validate/pod", world, mode)
    assert not [each for each in verdict.violations if each.rule.needed_for_injection]
    assert verdict.allowed or mode is Mode.ENFORCE


@given(careful_pods(), worlds)
def test_a_careful_pod_is_confidential_after_one_round(pod: Json, world: World) -> None:
    after, decision = _mutated(pod, world, Mode.ENFORCE)
    assume(decision.allowed and ask(after, "/validate/pod", world, Mode.ENFORCE).allowed)
    assert faults(after, world) == []


@given(pods(), worlds, modes)
def test_only_the_declared_fields_change(pod: Json, world: World, mode: Mode) -> None:
    after, decision = _mutated(pod, world, mode)
    assume(decision.outcome == "mutated")
    assert [each["path"] for each in decision.operations if not _ALLOWED.fullmatch(each["path"])] == []
    assert _without_ours(after) == _without_ours(pod)
    for old, new in zip(_own_containers(pod), _own_containers(after), strict=True):
        _check_container(old, new, after)


def _own_containers(pod: Json) -> list[Json]:
    groups = (*(pod["spec"].get("initContainers") or ()), *pod["spec"]["containers"])
    return [each for each in groups if each["name"] != "morphisms-init"]


def _without_ours(pod: Json) -> Json:
    """The pod without the fields that a rewrite may change; containers are compared one by one."""
    pod = json.loads(json.dumps(pod))
    spec, metadata = pod["spec"], pod["metadata"]
    annotations = metadata.pop("annotations", None) or {}
    annotations.pop("morphisms.dev/status", None)
    for mesh in (
        "traffic.sidecar.istio.io/excludeOutboundPorts",
        "traffic.sidecar.istio.io/excludeInboundPorts",
        "config.linkerd.io/skip-outbound-ports",
        "config.linkerd.io/skip-inbound-ports",
    ):
        annotations.pop(mesh, None)
    metadata["annotations"] = annotations
    for member in ("runtimeClassName", "overhead", "nodeSelector", "initContainers", "containers"):
        spec.pop(member, None)
    for member, own in (("volumes", "morphisms-"), ("imagePullSecrets", "registry")):
        listed = spec.pop(member, None) or []
        spec[member] = [each for each in listed if not each.get("name", "").startswith(own)]
    spec["tolerations"] = [each for each in spec.get("tolerations") or [] if each.get("key") != "confidential"]
    security = spec.pop("securityContext", None) or {}
    spec["securityContext"] = {
        key: value for key, value in security.items() if key not in ("fsGroup", "fsGroupChangePolicy")
    }
    affinity = spec.pop("affinity", None) or {}
    node_affinity = affinity.pop("nodeAffinity", None) or {}
    terms = (node_affinity.pop(_REQUIRED, None) or {}).get("nodeSelectorTerms") or []
    others = [{key: value for key, value in term.items() if key != "matchExpressions"} for term in terms]
    spec["affinity"] = [affinity, node_affinity, [each for each in others if any(each.values())]]
    return pod  # type: ignore[no-any-return]


def _check_container(old: Json, new: Json, after: Json) -> None:
    changed = {key for key in old.keys() | new.keys() if old.get(key) != new.get(key)}
    assert changed <= {"command", "args", "env", "volumeMounts"}
    if old["name"] == "queue-proxy":
        assert changed == set()
    moved = [each for each in old.get("env") or [] if is_reference(each.get("value", ""))]
    references = [each for each in moved if each["name"] not in texts(after)]
    if "env" in changed:
        assert new["env"] == [each for each in old["env"] if each not in references]
    if "command" in changed:
        words = [*old["command"], *(old.get("args") or ())]
        assert new["command"] == ["/morphisms/run/exec", old["name"], "--", *words]
        assert "args" not in new
    else:
        assert old.get("args") == new.get("args")
    present = old.get("volumeMounts") or []
    added = (new.get("volumeMounts") or [])[len(present) :]
    assert (new.get("volumeMounts") or [])[: len(present)] == present
    assert all(mount["name"].startswith("morphisms-") and mount["readOnly"] for mount in added)
    if added:
        assert old["name"] in expected_consumers(after, plan_of(after), options_of(after))


@given(pods(most=6), worlds, modes, st.sampled_from(["/mutate/pod", "/validate/pod"]))
def test_values_never_appear_outside_their_fields(pod: Json, world: World, mode: Mode, path: str) -> None:
    decision = ask(pod, path, world, mode)
    answer = json.loads(write_review("u", decision))["response"]
    patch = base64.b64decode(answer.pop("patch", "")).decode()
    assert ENV_CANARY not in patch
    said = f"{answer} {decision.violations} {decision.denial} {decision.warnings} {decision.audit}"
    assert ENV_CANARY not in said
    assert ARG_CANARY not in said
    if ARG_CANARY in patch:
        wrapped = [each["value"] for each in json.loads(patch) if each["path"].endswith("/command")]
        assert patch.count(ARG_CANARY) == json.dumps(wrapped).count(ARG_CANARY)


@given(careful_pods(), worlds, st.data())
def test_a_restricted_pod_stays_restricted(pod: Json, world: World, data: st.DataObject) -> None:
    restrict(pod, data.draw(st.sampled_from(["pod", "containers"])))
    assert breaches(pod) == []
    after, decision = _mutated(pod, world, Mode.INJECT)
    assume(decision.allowed)
    assert breaches(after) == []


@pytest.mark.parametrize("mode", list(Mode))
def test_the_generator_makes_pods_that_are_mutated(mode: Mode) -> None:
    """Laws about mutated pods are empty if no pod is mutated."""
    outcomes: dict[str, int] = {}

    @given(careful_pods(), worlds)
    def collect(pod: Json, world: World) -> None:
        _, decision = _mutated(pod, world, mode)
        outcomes[decision.outcome] = outcomes.get(decision.outcome, 0) + 1

    collect()
    assert outcomes["mutated"] > sum(outcomes.values()) / 8
