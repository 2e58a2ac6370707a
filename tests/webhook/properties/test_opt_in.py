"""Laws of opting in, against the oracle's own reading of a pod."""

from __future__ import annotations

from typing import Any

from hypothesis import event, given, settings

from tests.webhook.properties.oracle import opts_in
from tests.webhook.properties.pods import pods
from tests.webhook.properties.worlds import NAMESPACE, World, ask, modes, worlds
from webhook.modes import Mode
from webhook.pod.opt_in import requests_injection
from webhook.pod.pod import Pod

Json = dict[str, Any]


@settings(max_examples=300)
@given(pods(), worlds, modes)
def test_the_webhook_and_the_oracle_agree_on_who_opts_in(pod: Json, world: World, mode: Mode) -> None:
    expected = opts_in(pod, mode.value)
    event(f"{mode.value}: {expected}")
    assert requests_injection(Pod(pod, NAMESPACE, world.configuration), mode) is expected


@settings(max_examples=300)
@given(pods(), worlds, modes)
def test_a_pod_that_does_not_opt_in_is_never_refused_before_enforce(pod: Json, world: World, mode: Mode) -> None:
    if mode is Mode.ENFORCE or opts_in(pod, mode.value):
        return
    mutation, validation = ask(pod, "/mutate/pod", world, mode), ask(pod, "/validate/pod", world, mode)
    assert mutation.allowed
    assert validation.allowed
    if mode is not Mode.INJECT:
        assert list(mutation.operations) == []
