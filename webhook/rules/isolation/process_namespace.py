"""Containers do not see each other's processes, unless the pod has a signal sent when a secret changes."""

from __future__ import annotations

from collections.abc import Iterator

from plan.document import NO_REACTION
from webhook.rules.rule import FieldMessage, Rule, Severity, Subject


def check(subject: Subject) -> Iterator[FieldMessage]:
    if subject.pod.spec.get("shareProcessNamespace") and subject.pod.options.on_change == NO_REACTION:
        yield (
            "spec.shareProcessNamespace",
            "remove shareProcessNamespace: every container could read the environment and memory of the others",
        )


RULE = Rule(
    id="isolation/process-namespace",
    severity=Severity.MEDIUM,
    summary="containers share a process namespace only for signals on changed secrets",
    check=check,
)
