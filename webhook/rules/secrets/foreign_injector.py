"""Another injector does not work on the same pod: two would each do half."""

from __future__ import annotations

from collections.abc import Iterator

from webhook.pod.other_injectors import claimed_by
from webhook.rules.rule import Finding, Rule, Severity, Subject


def check(subject: Subject) -> Iterator[Finding]:
    for injector in claimed_by(subject.pod.annotations):
        yield (
            "metadata.annotations",
            f"{injector} is asked to inject here too; translate its annotations: morphisms convert -f FILE",
        )


RULE = Rule(
    id="secrets/foreign-injector",
    severity=Severity.HIGH,
    summary="no other secret injector works on the pod",
    check=check,
    needed_for_injection=True,
)
