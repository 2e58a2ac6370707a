"""Laws of /validate/pod in mode enforce: an admitted pod has every property that the oracle requires."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

from tests.webhook.properties import rfc6902
from tests.webhook.properties.oracle import faults
from tests.webhook.properties.pods import careful_pods, pods
from tests.webhook.properties.tampers import TAMPERS, Tamper
from tests.webhook.properties.worlds import World, ask, worlds
from webhook.modes import Mode

Json = dict[str, Any]


def _injected(pod: Json, world: World) -> Json:
    decision = ask(pod, "/mutate/pod", world, Mode.INJECT)
    assume(decision.allowed)
    after = rfc6902.apply(pod, decision.operations)
    return json.loads(json.dumps(after))  # type: ignore[no-any-return]


@given(pods(), worlds)
def test_a_pod_admitted_as_written_is_confidential(pod: Json, world: World) -> None:
    if ask(pod, "/validate/pod", world, Mode.ENFORCE).allowed:
        assert faults(pod, world) == []


@settings(max_examples=200)
@given(pods(), worlds, st.lists(st.sampled_from(TAMPERS), max_size=2))
def test_a_pod_admitted_after_injection_and_tampering_is_confidential(
    pod: Json, world: World, tampers: list[Tamper]
) -> None:
    after = _injected(pod, world)
    assume(any(each.get("name") == "morphisms-init" for each in after["spec"].get("initContainers") or []))
    for tamper in tampers:
        after = _tampered(tamper, after)
    admitted = ask(after, "/validate/pod", world, Mode.ENFORCE).allowed
    event(f"admitted: {admitted}")
    if admitted:
        assert faults(after, world) == []


def _tampered(tamper: Tamper, pod: Json) -> Json:
    """The pod after the tamper; unchanged if an earlier tamper removed the part that this one changes."""
    try:
        return tamper(copy.deepcopy(pod)) or pod
    except (LookupError, StopIteration, ValueError):
        return pod


@pytest.mark.parametrize("tamper", TAMPERS, ids=lambda each: each.__name__)
def test_tampering_is_refused(tamper: Tamper) -> None:
    refused = 0

    @settings(max_examples=12)
    @given(careful_pods(), worlds)
    def check(pod: Json, world: World) -> None:
        nonlocal refused
        after = _injected(pod, world)
        assume(ask(after, "/validate/pod", world, Mode.ENFORCE).allowed)
        before = copy.deepcopy(after)
        tampered = tamper(after)
        assume(tampered is not None and tampered != before)
        assert not ask(tampered, "/validate/pod", world, Mode.ENFORCE).allowed
        refused += 1

    check()
    assert refused > 0


@settings(max_examples=60)
@given(pods(), worlds, st.sampled_from(Mode), st.sampled_from(Mode), st.sampled_from(["/mutate/pod", "/validate/pod"]))
def test_the_path_and_the_view_decide_as_the_stricter_of_both_alone(
    pod: Json, world: World, path_mode: Mode, seen: Mode, family: str
) -> None:
    """Whatever the pod: the other one of the two changes nothing of the answer, and so loosens nothing."""
    stricter = max(path_mode, seen, key=list(Mode).index)
    alone = ask(pod, family, world, stricter)
    assert ask(pod, f"{family}/{path_mode.path_segment}", world, seen) == alone
    assert ask(pod, f"{family}/{stricter.path_segment}", world, stricter) == alone
