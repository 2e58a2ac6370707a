"""No annotation changes the guest's hypervisor, except those that the operator allows and the measured initdata."""

from __future__ import annotations

from collections.abc import Iterator

from webhook.pod.container import display_name
from webhook.rules.rule import FieldMessage, Rule, Severity, Subject
from webhook.wellknown import INITDATA, KATA_PREFIX


def check(subject: Subject) -> Iterator[FieldMessage]:
    allowed = subject.pod.configuration.hypervisorAnnotations
    for key in subject.pod.annotations:
        if key.startswith(KATA_PREFIX) and key != INITDATA and key not in allowed:
            yield (
                f"metadata.annotations[{display_name(key)}]",
                "remove this Kata annotation, or have the operator add it to hypervisorAnnotations",
            )


RULE = Rule(
    id="isolation/hypervisor-annotations",
    severity=Severity.HIGH,
    summary="no annotation changes the hypervisor",
    check=check,
)
