"""Laws of /validate/pod in mode enforce: what it lets through has every policy property, by the oracle's reckoning."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import assume, given, settings

from tests.properties import rfc6902
from tests.properties.oracle import faults
from tests.properties.pods import careful_pods, pods
from tests.properties.tampers import TAMPERS, Tamper
from tests.properties.worlds import World, ask, worlds
from webhook.modes import Mode

Json = dict[str, Any]


def _injected(pod: Json, world: World) -> Json:
    decision = ask(pod, "/mutate/pod", world, Mode.INJECT)
    assume(decision.allowed)
    after = rfc6902.apply(pod, decision.operations)
    return json.loads(json.dumps(after))  # type: ignore[no-any-return]


@given(pods(), worlds)
def test_what_is_admitted_as_written_is_confidential(pod: Json, world: World) -> None:
    if ask(pod, "/validate/pod", world, Mode.ENFORCE).allowed:
        assert faults(pod, world) == []


@pytest.mark.parametrize("tamper", TAMPERS, ids=lambda each: each.__name__)
def test_meddling_is_refused(tamper: Tamper) -> None:
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
