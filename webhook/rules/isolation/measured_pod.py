"""A pod that its author rendered and measured is complete: whatever injection would add was not measured."""

from __future__ import annotations

from collections.abc import Iterator

from webhook.rewrite import rewrite
from webhook.rules.rule import FieldMessage, Rule, Severity, Subject
from webhook.wellknown import INITDATA


def check(subject: Subject) -> Iterator[FieldMessage]:
    pod = subject.pod
    if not pod.is_measured or subject.old is not None:
        return
    operations = rewrite(pod, subject.snapshot).operations
    if operations:
        parts = ", ".join(sorted({"/".join(operation["path"].split("/")[1:3]) for operation in operations}))
        yield (
            f"metadata.annotations[{INITDATA}]",
            f"injection would change the measured pod ({parts}), so it is not the one measured;"
            " render and measure it again",
        )


RULE = Rule(
    id="isolation/measured-pod",
    severity=Severity.HIGH,
    summary="a measured pod needs no change",
    check=check,
    needed_for_injection=True,
)
