"""Policy versions, played with a rule and a wider reach of a coming release: an upgrade denies nothing of yesterday."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from plan.layout import VERSION
from server.yaml.strict import ConfigurationError, parse
from tests.cli.recorded import pod as recorded_pod
from tests.manifests.rendering import MANIFESTS
from webhook import policy_version
from webhook.admission import mutate_pod, validate_pod
from webhook.configuration.model import Configuration
from webhook.decide import decide
from webhook.decision import Decision
from webhook.modes import Mode
from webhook.request import Request, User
from webhook.rules import BY_ID
from webhook.rules.rule import FieldMessage, Rule, Severity, Subject
from webhook.snapshot import RuntimeClassRecord, Snapshot

_CLASSES = {"kata-qemu-snp": RuntimeClassRecord("kata-qemu-snp", "kata-qemu-snp")}


def _checked(subject: Subject) -> Iterator[FieldMessage]:
    """Found since 0.1: subdomain `old`. Since 0.2 also: `new`."""
    if subject.pod.spec.get("subdomain") == "old":
        yield "spec.subdomain", "remove the subdomain"
    if subject.pod.spec.get("subdomain") == "new":
        yield "spec.subdomain", "remove the subdomain", "0.2"


def _needed(subject: Subject) -> Iterator[FieldMessage]:
    if subject.pod.spec.get("hostname"):
        yield "spec.hostname", "remove the hostname"


_WIDER = Rule("isolation/wider", Severity.HIGH, "a rule with a wider reach since 0.2", _checked)
_NEW = Rule("isolation/new", Severity.HIGH, "a rule of 0.2", _needed, needed_for_injection=True, since="0.2")


@pytest.fixture(autouse=True)
def coming(monkeypatch: pytest.MonkeyPatch) -> None:
    """The release after this one."""
    monkeypatch.setattr(policy_version, "RELEASES", ("0.1", "0.2"))
    monkeypatch.setattr(validate_pod, "POD", (*validate_pod.POD, _WIDER, _NEW))
    monkeypatch.setattr(mutate_pod, "NEEDED_FOR_INJECTION", (*mutate_pod.NEEDED_FOR_INJECTION, _NEW))


def _decided(policy: str | None, mode: Mode, *, rules: Any = None, asks: bool = True, **spec: Any) -> Decision:
    """The answer of both calls to a pod's creation: the first refusal, else that of validation."""
    configuration = Configuration.model_validate({"policy": policy, "rules": rules or {}})
    snapshot = Snapshot({"shop": mode}, {}, _CLASSES)
    item = recorded_pod(**spec)
    item["metadata"]["annotations"] = {"morphisms.dev/inject": "true"} if asks else {}
    for path in ("/mutate/pod", "/validate/pod"):
        kind, resource = ("", "v1", "Pod"), ("", "v1", "pods")
        request = Request("1", path, kind, resource, "", "CREATE", "", "shop", User("dev"), item)
        decision = decide(request, configuration, snapshot)
        if not decision.allowed:
            return decision
        item = decision.result or item
    assert "morphisms-init" in str(item), "the pod is injected as it was yesterday"
    return decision


@pytest.mark.parametrize("policy", [None, "0.1"])
@pytest.mark.parametrize("spec", [{"hostname": "a"}, {"subdomain": "new"}])
@pytest.mark.parametrize("mode", [Mode.INJECT, Mode.ENFORCE])
def test_after_an_upgrade_a_pod_that_complied_is_injected_and_what_is_newer_is_recorded(
    mode: Mode, spec: dict[str, str], policy: str | None
) -> None:
    decision = _decided(policy, mode, **spec)
    assert decision.allowed
    (violation,) = decision.violations
    assert decision.audit["denied-by-newer-policy"] == violation.rule.id
    assert decision.warnings == (str(violation),)
    assert "would-deny" not in decision.audit


@pytest.mark.parametrize("spec", [{"hostname": "a"}, {"subdomain": "new"}])
def test_the_policy_of_the_release_denies(spec: dict[str, str]) -> None:
    decision = _decided("0.2", Mode.ENFORCE, **spec)
    assert not decision.allowed
    assert decision.audit["violations"] in ("isolation/new", "isolation/wider")


def test_the_new_policy_denies_a_pod_that_opts_in_where_injection_needs_the_rule() -> None:
    assert not _decided("0.2", Mode.INJECT, hostname="a").allowed
    assert _decided("0.2", Mode.INJECT, subdomain="new").allowed


@pytest.mark.parametrize("policy", [None, "0.1", "0.2"])
def test_the_former_reach_of_a_rule_denies_under_every_policy(policy: str | None) -> None:
    assert not _decided(policy, Mode.ENFORCE, subdomain="old").allowed


def test_an_action_of_the_configuration_counts_at_once() -> None:
    rules = {"isolation/wider": {"enforce": "deny"}}
    assert not _decided("0.1", Mode.ENFORCE, rules=rules, subdomain="new").allowed
    rules = {"isolation/wider": {"enforce": "ignore"}}
    assert _decided("0.2", Mode.ENFORCE, rules=rules, subdomain="new").violations == ()


@pytest.mark.parametrize(("policy", "problem"), [("0.3", "write one of 0.1, 0.2"), ("1", "policy"), ("v0.1", "policy")])
def test_a_policy_that_this_release_does_not_know_is_refused(policy: str, problem: str) -> None:
    with pytest.raises(ConfigurationError, match="policy") as raised:
        parse(f"policy: '{policy}'".encode(), Configuration, name="configuration.yaml")
    assert problem in str(raised.value)


def test_nothing_is_released_yet_so_every_rule_is_of_the_first_policy() -> None:
    assert {rule.since for rule in BY_ID.values()} == {policy_version.FIRST}


def test_the_manifests_name_the_policy_of_this_release(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert VERSION.startswith(f"{policy_version.current()}.")
    found = [*MANIFESTS.glob("base/webhook/configuration.yaml"), *MANIFESTS.glob("overlays/*/configuration.yaml")]
    assert found
    for path in found:
        assert yaml.safe_load(path.read_text())["policy"] == policy_version.current(), path
