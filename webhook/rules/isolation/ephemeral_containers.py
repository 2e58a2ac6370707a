"""Confidential pods have no debug (ephemeral) containers: those share their volumes and may see their processes."""

from __future__ import annotations

from collections.abc import Iterator

from webhook.rules.rule import FieldMessage, Rule, Severity, Subject


def check(subject: Subject) -> Iterator[FieldMessage]:
    for container in subject.pod.containers:
        if container.group == "ephemeralContainers":
            yield (
                container.field,
                "confidential pods cannot have ephemeral containers; debug a copy of the pod in another namespace",
            )


RULE = Rule(
    id="isolation/ephemeral-containers",
    severity=Severity.CRITICAL,
    summary="the pod has no ephemeral containers",
    check=check,
)
