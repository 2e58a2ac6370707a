"""Nobody is let into a confidential pod by a debug container, which shares its volumes and may see its processes."""

from __future__ import annotations

from collections.abc import Iterator

from webhook.rules.rule import Finding, Rule, Severity, Subject


def check(subject: Subject) -> Iterator[Finding]:
    for container in subject.pod.containers:
        if container.group == "ephemeralContainers":
            yield container.field, "no ephemeral containers in confidential pods; debug a copy outside this namespace"


RULE = Rule(
    id="isolation/ephemeral-containers",
    severity=Severity.CRITICAL,
    summary="the pod has no ephemeral containers",
    check=check,
)
