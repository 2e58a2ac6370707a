"""No other secret injector changes the same pod: each of the two would do half of the work."""

from __future__ import annotations

from collections.abc import Iterator

from webhook.pod.other_injectors import claimed_by
from webhook.rules.rule import FieldMessage, Rule, Severity, Subject


def check(subject: Subject) -> Iterator[FieldMessage]:
    for injector in claimed_by(subject.pod.annotations):
        yield (
            "metadata.annotations",
            f"the annotations opt in to {injector} too; translate them: morphisms convert -f FILE",
        )


RULE = Rule(
    id="secrets/foreign-injector",
    severity=Severity.HIGH,
    summary="no other secret injector changes the pod",
    check=check,
    needed_for_injection=True,
)
