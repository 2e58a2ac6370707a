"""Pods of other injectors, and annotations that do nothing, in every mode."""

from __future__ import annotations

from typing import Any

import pytest

from tests.webhook.admission.created_pods import decide_pod
from webhook.modes import Mode

_PATHS = ("/mutate/pod", "/validate/pod")
_DIGEST = "@sha256:" + "0123456789abcdef" * 4
Pod = dict[str, Any]


def _pod(annotations: dict[str, str] | None = None, *values: str, **spec: Any) -> Pod:
    env = [{"name": f"V{place}", "value": value} for place, value in enumerate(values)]
    container = {"name": "app", "image": "r.example/app" + _DIGEST, "command": ["x"], "env": env}
    ours = {f"morphisms.dev/{key}" if "/" not in key else key: value for key, value in (annotations or {}).items()}
    metadata = {"name": "app", "namespace": "shop", "annotations": ours}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [container], **spec}}


_BANK_VAULTS = {"vault.security.banzaicloud.io/vault-addr": "https://vault:8200"}
_AGENT = {"vault.hashicorp.com/agent-inject": "true", "vault.hashicorp.com/agent-inject-secret-db": "secret/data/db"}
_OF_OTHERS = {
    "annotations of Bank-Vaults": _pod(_BANK_VAULTS, "vault:secret/data/db#password"),
    "annotations of Bank-Vaults, a logical path": _pod(_BANK_VAULTS, "vault:secret/db#password"),
    "annotations of Bank-Vaults, inline": _pod(_BANK_VAULTS, "a:${vault:secret/data/db#password}@db"),
    "annotations of the Vault Agent": _pod(_AGENT),
    "no annotation": _pod(None, "vault:secret/data/db#password"),
    "no annotation, inline": _pod(None, "a:${vault:secret/data/db#password}@db"),
    "no annotation, a template as key": _pod(None, "vault:secret/data/db#${.user}"),
    "no annotation, written": _pod(None, ">>vault:secret/db#password#{}"),
    "no annotation, written inline": _pod(None, "a:${>>vault:secret/db#password#{}}"),
    "worked on already": _pod(initContainers=[{"name": "copy-vault-env", "image": "r.example/env" + _DIGEST}]),
    "no command": _pod(
        None,
        "vault:secret/data/db#password",
        containers=[
            {"name": "app", "image": "r.example/app" + _DIGEST, "env": [{"name": "P", "value": "vault:secret/db#p"}]}
        ],
    ),
}


@pytest.mark.parametrize("pod", _OF_OTHERS.values(), ids=_OF_OTHERS)
@pytest.mark.parametrize("mode", [Mode.ABSENT, Mode.AUDIT, Mode.INJECT])
def test_a_pod_of_another_injector_is_left_alone_before_enforce(pod: Pod, mode: Mode) -> None:
    mutation, validation = (decide_pod(pod, path, mode) for path in _PATHS)
    assert mutation.outcome == "unchanged"
    assert list(mutation.operations) == []
    assert validation.allowed
    assert bool(validation.violations) is (mode is not Mode.ABSENT)


@pytest.mark.parametrize("pod", _OF_OTHERS.values(), ids=_OF_OTHERS)
def test_a_pod_of_another_injector_is_denied_in_enforce(pod: Pod) -> None:
    assert not any(decide_pod(pod, path, Mode.ENFORCE).allowed for path in _PATHS)


@pytest.mark.parametrize("pod", _OF_OTHERS.values(), ids=_OF_OTHERS)
@pytest.mark.parametrize("mode", Mode)
def test_a_pod_that_two_injectors_claim_is_refused(pod: Pod, mode: Mode) -> None:
    annotations = {**pod["metadata"]["annotations"], "morphisms.dev/inject": "true"}
    both = {**pod, "metadata": {**pod["metadata"], "annotations": annotations}}
    assert not any(decide_pod(both, path, mode).allowed for path in _PATHS)


def test_a_path_of_the_kv2_api_is_refused_with_the_line_to_write() -> None:
    decision = decide_pod(_pod({"inject": "true"}, "vault:secret/data/shop/db#password"), "/mutate/pod", Mode.AUDIT)
    assert decision.denial is not None
    assert "write secret/shop/db#password" in decision.denial.message
    decision = decide_pod(_pod({"secret-db": "secret/data/shop/db"}), "/mutate/pod", Mode.AUDIT)
    assert decision.denial is not None
    assert "write secret/shop/db" in decision.denial.message


# Ordinary pods.


@pytest.mark.parametrize("value", ["vault:1.6.0", "vault:8200", "vault:", "vault:latest#1", "vault:5000/image:1.2"])
@pytest.mark.parametrize("mode", Mode)
def test_text_that_starts_with_vault_does_no_harm(value: str, mode: Mode) -> None:
    mutation = decide_pod(_pod(None, value), "/mutate/pod", mode)
    assert mutation.allowed
    assert (mutation.outcome == "mutated") is (mode in (Mode.INJECT, Mode.ENFORCE))
    assert (
        decide_pod(mutation.result or _pod(None, value), "/validate/pod", mode).violations == () or mode is Mode.AUDIT
    )


def test_text_in_a_pod_that_opts_in_stays_as_it_is() -> None:
    pod = _pod({"inject": "true", "literal-env": "V2,V3"}, "vault:1.15", "vault:8200", "vault:a/b", "vault:a/b#c")
    mutation = decide_pod(pod, "/mutate/pod", Mode.ENFORCE)
    assert mutation.result is not None
    assert mutation.result["spec"]["containers"][0]["env"] == pod["spec"]["containers"][0]["env"]
    assert decide_pod(mutation.result, "/validate/pod", Mode.ENFORCE).allowed


@pytest.mark.parametrize("mode", Mode)
def test_a_forgotten_key_is_refused_in_a_pod_that_opts_in(mode: Mode) -> None:
    decision = decide_pod(_pod({"inject": "true"}, "vault:secret/shop/db"), "/mutate/pod", mode)
    assert decision.denial is not None
    assert "literal-env: V0" in decision.denial.message


@pytest.mark.parametrize("value", ["vault:hunter2-Xx9", "vault:hunter2/Xx9#1"])
def test_text_is_still_searched_for_secrets(value: str) -> None:
    pod = _pod({"literal-env": "DB_PASSWORD"})
    pod["spec"]["containers"][0]["env"] = [{"name": "DB_PASSWORD", "value": value}]
    mutation = decide_pod(pod, "/mutate/pod", Mode.ENFORCE)
    found = decide_pod(mutation.result or pod, "/validate/pod", Mode.ENFORCE)
    assert "secrets/plaintext-env" in {each.rule.id for each in found.violations}
    assert not found.allowed


def test_a_bare_reference_is_warned_of_where_it_stays_text() -> None:
    decision = decide_pod(_pod(None, "vault:secret/shop/db#password"), "/validate/pod", Mode.AUDIT)
    assert "Vault references alone do not opt in" in decision.warnings[0]
    assert decide_pod(_pod(None, "vault:secret/shop/db#password"), "/mutate/pod", Mode.AUDIT).outcome == "unchanged"
    assert decide_pod(_pod(None, "vault:secret/shop/db#password"), "/mutate/pod", Mode.INJECT).outcome == "mutated"


# Annotations that are mistyped or do nothing.


@pytest.mark.parametrize("value", ["True", "yes", "1", " true", ""])
@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("path", _PATHS)
def test_an_unusable_inject_is_refused(value: str, mode: Mode, path: str) -> None:
    decision = decide_pod(_pod({"inject": value}), path, mode)
    assert decision.denial is not None
    assert 'morphisms.dev/inject is neither "true" nor "false"' in decision.denial.message


_FAULTS = {
    "injct": ({"injct": "true"}, "did you mean inject?"),
    "profile": ({"profile": "kata-smp"}, "the isolation profile"),
    "agent": ({"agent": "sidekick"}, "is not one of"),
    "literal-env": ({"literal-env": "A,,B"}, "comma list of variable names"),
    "file": ({"file-db": "db"}, "needs annotation secret-db"),
    "containers": ({"containers": "no-such"}, "names container no-such"),
    "on-change": ({"on-change": "signal:SIGHUP:app", "agent": "sidecar"}, "signals need"),
    "secret": ({"inject": "false", "secret-db": "db"}, "no usable path"),
}


@pytest.mark.parametrize(("annotations", "message"), _FAULTS.values(), ids=_FAULTS)
@pytest.mark.parametrize("mode", Mode)
def test_an_unusable_annotation_is_answered_in_every_mode(
    annotations: dict[str, str], message: str, mode: Mode
) -> None:
    decision = decide_pod(_pod(annotations), "/validate/pod", mode)
    said = decision.denial.message if decision.denial else "\n".join(decision.warnings)
    assert message in said
    assert decision.allowed is (mode is not Mode.ENFORCE)
