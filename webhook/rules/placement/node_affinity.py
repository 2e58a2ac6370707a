"""Every node that the scheduler may choose satisfies the profile: each term says so, since terms are ORed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from webhook.configuration.profiles import NodeRequirement
from webhook.rules.rule import Finding, Rule, Severity, Subject

_FIELD = "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms"


def check(subject: Subject) -> Iterator[Finding]:
    profile = subject.pod.profile
    if profile is None or not profile.requirements:
        return
    terms = _terms(subject.pod.spec)
    if not terms:
        yield _FIELD, f"no required node affinity confines the pod to nodes of profile {profile.name}"
    for index, term in enumerate(terms):
        expressions = term.get("matchExpressions") or []
        if not expressions and not term.get("matchFields"):
            continue  # matches no node
        for requirement in profile.requirements:
            if not any(requirement.implied_by(expression) for expression in expressions):
                yield f"{_FIELD}[{index}]", f"the term lacks {_text(requirement)}; every term needs it"


def _terms(spec: dict[str, Any]) -> list[dict[str, Any]]:
    node_affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = node_affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    return required.get("nodeSelectorTerms") or []


def _text(requirement: NodeRequirement) -> str:
    return " ".join((requirement.key, requirement.operator, ", ".join(requirement.values))).rstrip()


RULE = Rule(
    id="placement/node-affinity",
    severity=Severity.CRITICAL,
    summary="every node selector term confines the pod to its profile's nodes",
    check=check,
    needed_for_injection=True,
)
