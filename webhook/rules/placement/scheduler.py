"""The scheduler is one that is known to respect node affinity."""

from __future__ import annotations

from collections.abc import Iterator

from webhook.rules.rule import FieldMessage, Rule, Severity, Subject


def check(subject: Subject) -> Iterator[FieldMessage]:
    known = subject.pod.configuration.schedulers
    name = subject.pod.spec.get("schedulerName")
    if name and name not in known:
        yield (
            "spec.schedulerName",
            f"this scheduler may ignore affinity; remove schedulerName or use {', '.join(known)}",
        )


RULE = Rule(
    id="placement/scheduler",
    severity=Severity.HIGH,
    summary="the pod uses a known scheduler",
    check=check,
)
