"""Only the scheduler chooses the node: a preset `nodeName` bypasses the scheduler, and so the affinity."""

from __future__ import annotations

from collections.abc import Iterator

from webhook.rules.rule import FieldMessage, Rule, Severity, Subject


def check(subject: Subject) -> Iterator[FieldMessage]:
    if subject.old is None and subject.pod.spec.get("nodeName"):
        yield (
            "spec.nodeName",
            "remove nodeName: it bypasses the scheduler, which chooses a confidential node by the pod's affinity",
        )


RULE = Rule(
    id="placement/node-name",
    severity=Severity.CRITICAL,
    summary="the pod's node is not preset",
    check=check,
    needed_for_injection=True,
)
