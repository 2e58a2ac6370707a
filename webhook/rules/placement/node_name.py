"""Nobody but the scheduler chooses the node: a preset `nodeName` skips it, and the affinity with it."""

from __future__ import annotations

from collections.abc import Iterator

from webhook.rules.rule import Finding, Rule, Severity, Subject


def check(subject: Subject) -> Iterator[Finding]:
    if subject.old is None and subject.pod.spec.get("nodeName"):
        yield (
            "spec.nodeName",
            "nodeName skips the scheduler; remove it, and the pod's affinity picks a confidential node",
        )


RULE = Rule(
    id="placement/node-name",
    severity=Severity.CRITICAL,
    summary="the pod's node is not preset",
    check=check,
    needed_for_injection=True,
)
