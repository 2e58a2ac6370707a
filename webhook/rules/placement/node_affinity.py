"""Every node that the scheduler may choose fits the profile. Terms are ORed, so each of them has to require it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from webhook.configuration.profiles import NodeRequirement
from webhook.rules.rule import FieldMessage, Rule, Severity, Subject

_FIELD = "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms"


def check(subject: Subject) -> Iterator[FieldMessage]:
    profile = subject.pod.profile
    if profile is None or not profile.requirements:
        return
    terms = _terms(subject.pod.spec)
    if not terms:
        expressions = " and ".join(map(_expression, profile.requirements))
        yield _FIELD, f"add a term for the nodes of profile {profile.name}: {expressions}"
    for index, term in enumerate(terms):
        given = term.get("matchExpressions") or []
        if not given and not term.get("matchFields"):
            continue  # matches no node
        for requirement in profile.requirements:
            for expression in given:
                if requirement.implied_by(expression):
                    break
            else:
                yield (
                    f"{_FIELD}[{index}]",
                    f"add {_expression(requirement)} to this term: terms are alternatives, so each needs it",
                )


def _terms(spec: dict[str, Any]) -> list[dict[str, Any]]:
    node_affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = node_affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    return required.get("nodeSelectorTerms") or []


def _expression(requirement: NodeRequirement) -> str:
    return " ".join((requirement.key, requirement.operator, ", ".join(requirement.values))).rstrip()


RULE = Rule(
    id="placement/node-affinity",
    severity=Severity.CRITICAL,
    summary="every node selector term confines the pod to its profile's nodes",
    check=check,
    needed_for_injection=True,
)
