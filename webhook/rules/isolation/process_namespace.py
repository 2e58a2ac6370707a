"""Containers do not see each other's processes, unless the pod asks for signals on a changed secret."""

from __future__ import annotations

from collections.abc import Iterator

from plan.document import NO_REACTION
from webhook.rules.rule import Finding, Rule, Severity, Subject


def check(subject: Subject) -> Iterator[Finding]:
    if subject.pod.spec.get("shareProcessNamespace") and subject.pod.wishes.on_change == NO_REACTION:
        yield (
            "spec.shareProcessNamespace",
            "remove shareProcessNamespace: every container could read the others' environment and memory",
        )


RULE = Rule(
    id="isolation/process-namespace",
    severity=Severity.MEDIUM,
    summary="containers share no process namespace without need",
    check=check,
)
