"""References that their author wrapped: the application must not get them as text without a word."""

from __future__ import annotations

from typing import Any

import pytest

from webhook.configuration.model import Configuration
from webhook.decide import decide
from webhook.modes import Mode
from webhook.request import Request, User
from webhook.snapshot import RuntimeClassRecord, Snapshot

_CLASSES = {"kata-qemu-snp": RuntimeClassRecord("kata-qemu-snp", "kata-qemu-snp")}
_QUOTED, _OWN = '"vault:secret/shop/db#password"', " vault:~/db#password"


def _decided(value: str, annotations: dict[str, str], mode: Mode, path: str = "/mutate/pod") -> Any:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"annotations": {f"morphisms.dev/{key}": text for key, text in annotations.items()}},
        "spec": {
            "containers": [
                {
                    "name": "app",
                    "image": "example.com/app@sha256:" + "a" * 64,
                    "command": ["/app"],
                    "env": [{"name": "P", "value": value}],
                }
            ]
        },
    }
    kind, resource = ("", "v1", "Pod"), ("", "v1", "pods")
    request = Request("1", path, kind, resource, "", "CREATE", "", "shop", User("dev"), pod)
    return decide(request, Configuration(), Snapshot({"shop": mode}, {}, _CLASSES))


@pytest.mark.parametrize("mode", [Mode.AUDIT, Mode.INJECT, Mode.ENFORCE])
@pytest.mark.parametrize("value", [_QUOTED, _OWN])
def test_a_wrapped_reference_is_refused_in_a_pod_that_opts_in(value: str, mode: Mode) -> None:
    decision = _decided(value, {"inject": "true"}, mode)
    assert not decision.allowed
    assert "in quotes, in brackets or behind blanks; write vault:PATH#KEY alone" in decision.denial.message
    assert "where it is text, annotate morphisms.dev/literal-env: P" in decision.denial.message


@pytest.mark.parametrize("mode", [Mode.AUDIT, Mode.INJECT, Mode.ENFORCE])
@pytest.mark.parametrize("value", [_QUOTED, _OWN])
def test_the_annotation_says_that_it_is_text(value: str, mode: Mode) -> None:
    assert _decided(value, {"inject": "true", "literal-env": "P"}, mode).outcome == "mutated"


def test_our_own_spelling_in_quotes_is_never_passed_on_in_silence() -> None:
    """It does not make the pod opt in, but nobody else's reference looks like it."""
    assert not _decided(_OWN, {}, Mode.ENFORCE).allowed
    left = _decided(_OWN, {}, Mode.INJECT)
    assert (left.outcome, left.reason) == ("unchanged", "cannot-inject")
    warned = _decided(_OWN, {}, Mode.AUDIT, "/validate/pod")
    assert any("[secrets/references] env P has a Vault reference in quotes" in line for line in warned.warnings)


@pytest.mark.parametrize("mode", [Mode.AUDIT, Mode.INJECT])
def test_another_spelling_in_quotes_is_text_in_a_pod_that_does_not_opt_in(mode: Mode) -> None:
    assert _decided(_QUOTED, {}, mode).allowed
    warned = _decided(_QUOTED, {}, mode, "/validate/pod")
    assert not any("secrets/references" in line for line in warned.warnings)


def test_a_url_whose_scheme_is_vault_is_answered_with_the_way_to_say_that_it_is_text() -> None:
    decision = _decided("vault://vault.svc:8200/ui#/login", {"inject": "true"}, Mode.INJECT)
    assert "where it is text, annotate morphisms.dev/literal-env: P" in decision.denial.message
