"""The mode of a request: the stricter of the path that the API server called and of what the replica sees."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.paths import REVIEWS
from webhook.configuration.model import Configuration
from webhook.decide import PATHS, decide, lookup
from webhook.decision import Decision
from webhook.modes import Mode
from webhook.request import Request
from webhook.review import read_review
from webhook.snapshot import NodeRecord, RuntimeClassRecord, Snapshot

_POD = "pods-create-payments-by-replicaset-controller.json"
_BINDING = "pods-binding-create-payments-by-kube-scheduler.json"
_CLASSES = {"kata-qemu-snp": RuntimeClassRecord("kata-qemu-snp", "kata-qemu-snp")}
_NODES = {"plain-0": NodeRecord("plain-0", ())}
_FRESH, _STALE = 1.0, 301.0


def _request(path: str, review: str = _POD, annotations: dict[str, str] | None = None, **spec: Any) -> Request:
    item = json.loads((REVIEWS / review).read_text())
    if annotations:
        added = {f"morphisms.dev/{key}": value for key, value in annotations.items()}
        item["request"]["object"]["metadata"].setdefault("annotations", {}).update(added)
    if spec:
        item["request"]["object"]["spec"].update(spec)
    return read_review(json.dumps(item).encode(), path)


def _live(seen: Mode | None, age_seconds: float = _FRESH) -> Snapshot:
    """As the watch has it: a namespace that it has not seen counts as enforce where nothing else says the mode."""
    namespaces = {} if seen is None else {"default": seen}
    return Snapshot(namespaces, _NODES, _CLASSES, age_seconds=age_seconds, unlisted=Mode.ENFORCE)


@pytest.mark.parametrize("path_mode", Mode)
@pytest.mark.parametrize("seen", [*Mode, None])
@pytest.mark.parametrize("family", sorted({path.family for path in PATHS.values()} - {"/validate/namespace"}))
def test_the_stricter_of_path_and_view_counts(family: str, path_mode: Mode, seen: Mode | None) -> None:
    path = PATHS[f"{family}/{path_mode.path_segment}"]
    assert path.mode is path_mode
    review = {"/validate/binding": _BINDING, "/validate/connect": "pods-exec-connect-hello-by-dev.json"}.get(
        family, _POD
    )
    if family.endswith("/service"):
        review = "services-create-payments-by-dev.json"
    item = _request(f"{family}/{path_mode.path_segment}", review)
    strictest = max(path_mode, seen or Mode.ABSENT, key=lambda mode: mode.strictness)
    assert decide(item, Configuration(), _live(seen)).mode is strictest


@pytest.mark.parametrize("seen", [Mode.ABSENT, Mode.AUDIT, Mode.INJECT])
@pytest.mark.parametrize("age_seconds", [_FRESH, _STALE])
def test_a_cut_off_replica_does_not_judge_a_tightened_namespace_by_the_mode_that_it_remembers(
    seen: Mode, age_seconds: float
) -> None:
    """The attack: the namespace was tightened a moment ago, or while this replica was cut off."""
    attack = {"nodeName": "plain-0", "hostPID": True}
    status = {"status": "x", "inject": "false"}
    for path in ("/mutate/pod/enforce", "/validate/pod/enforce"):
        request = _request(path, annotations=status, **attack)
        assert not decide(request, Configuration(), _live(seen, age_seconds)).allowed, path
    former = _request("/validate/pod", annotations=status, **attack)
    assert decide(former, Configuration(), _live(seen)).allowed, "the path without a mode cannot know"


def test_a_namespace_that_the_replica_has_not_seen_counts_by_the_path_alone() -> None:
    other = _request("/validate/pod/audit", nodeName="plain-0")
    assert decide(other, Configuration(), _live(None)).allowed
    former = _request("/validate/pod", nodeName="plain-0")
    assert not decide(former, Configuration(), _live(None)).allowed
    assert not decide(_request("/validate/pod/enforce", nodeName="plain-0"), Configuration(), _live(None)).allowed
    # The commands know no cluster; the path says more than their default.
    assert decide(_request("/validate/pod/enforce"), Configuration(), None).mode is Mode.ENFORCE
    assert decide(_request("/validate/pod"), Configuration(), None).mode is Mode.INJECT


def test_a_loosened_namespace_stays_strict_until_the_replica_has_seen_it() -> None:
    request = _request("/validate/pod/audit", nodeName="plain-0")
    assert not decide(request, Configuration(), _live(Mode.ENFORCE)).allowed


def test_the_look_up_of_a_binding_goes_by_the_path_too() -> None:
    binding = _request("/validate/binding/enforce", _BINDING)
    assert lookup(binding, Configuration(), _live(Mode.ABSENT)) is not None
    assert lookup(_request("/validate/binding", _BINDING), Configuration(), _live(Mode.ABSENT)) is None


@pytest.mark.parametrize(
    "path",
    ["/mutate/pod/", "/mutate/pod/absent", "/mutate/pod/Enforce", "/validate/namespace/audit", "/mutate/pod/none/"],
)
def test_a_path_with_an_unknown_mode_is_an_unknown_path(path: str) -> None:
    denial = decide(_request(path), Configuration(), _live(Mode.AUDIT)).denial
    assert denial is not None
    assert denial.code == 404


# A view that is too old: the mode is known by the path; RuntimeClasses and nodes are not.

_OPTS_IN = {"inject": "true"}


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("family", ["/mutate/pod", "/validate/pod"])
def test_with_a_view_that_is_too_old_pods_that_need_a_runtime_class_wait_and_others_go_on(
    family: str, mode: Mode
) -> None:
    for own in (_OPTS_IN, {}):
        request = _request(f"{family}/{mode.path_segment}", annotations=own)
        decision = decide(request, Configuration(), _live(None, _STALE))
        if own or mode is Mode.ENFORCE:
            assert _code(decision) == 503, own
            assert decision.reason == "stale-snapshot"
        else:
            assert decision.allowed


@pytest.mark.parametrize(
    ("path", "review"),
    [
        ("/validate/connect/enforce", "pods-exec-connect-hello-by-dev.json"),
        ("/validate/service/enforce", "services-create-payments-by-dev.json"),
        ("/mutate/service/enforce", "services-create-payments-by-dev.json"),
    ],
)
def test_what_rests_on_neither_nodes_nor_classes_is_decided_with_a_view_that_is_too_old(path: str, review: str) -> None:
    fresh = decide(_request(path, review), Configuration(), _live(Mode.ENFORCE))
    assert decide(_request(path, review), Configuration(), _live(Mode.AUDIT, _STALE)) == fresh


def test_with_a_view_that_is_too_old_no_pod_of_an_enforced_namespace_is_bound() -> None:
    binding = _request("/validate/binding/enforce", _BINDING)
    assert _code(decide(binding, Configuration(), _live(Mode.AUDIT, _STALE))) == 503


def _code(decision: Decision) -> int | None:
    return None if decision.denial is None else decision.denial.code
