"""Vault references in the environment can be moved into the plan; what injection could not move is still there."""

from __future__ import annotations

from collections.abc import Iterator

from webhook.rules.rule import Finding, Rule, Severity, Subject


def check(subject: Subject) -> Iterator[Finding]:
    for references in subject.pod.references:
        if references.problems:
            yield from references.problems
        elif subject.pod.profile is not None and not subject.pod.profile.injects:
            yield (
                references.container.field,
                f"profile {subject.pod.profile.name} injects nothing; container {references.container.label}"
                " cannot get secrets from Vault references",
            )
        elif references.variables:
            yield (
                f"{references.container.field}.env",
                f"container {references.container.label} holds Vault references that nothing resolves;"
                " where annotation morphisms.dev/containers is given, it has to name this container too",
            )


RULE = Rule(
    id="secrets/references",
    severity=Severity.HIGH,
    summary="Vault references in env are usable",
    check=check,
    needed_for_injection=True,
)
