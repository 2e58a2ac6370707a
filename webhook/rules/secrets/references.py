"""Injection can move the Vault references in env into the plan; after injection, none is left in env."""

from __future__ import annotations

from collections.abc import Iterator

from webhook.rules.rule import FieldMessage, Rule, Severity, Subject


def check(subject: Subject) -> Iterator[FieldMessage]:
    for references in subject.pod.references:
        if references.problems:
            yield from references.problems
        elif subject.pod.profile is not None and not subject.pod.profile.injects:
            yield (
                references.container.field,
                f"profile {subject.pod.profile.name} does not inject, so container {references.container.label}"
                " cannot get secrets from Vault references; use another profile",
            )
        elif references.variables:
            yield (
                f"{references.container.field}.env",
                f"container {references.container.label} holds Vault references that no component resolves;"
                " add the container to annotation morphisms.dev/containers where that is set",
            )


RULE = Rule(
    id="secrets/references",
    severity=Severity.HIGH,
    summary="Vault references in env are usable",
    check=check,
    needed_for_injection=True,
)
