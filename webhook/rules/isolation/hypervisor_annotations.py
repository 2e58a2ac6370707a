"""No annotation reaches the hypervisor or the container runtime, but those that the operator allows and the initdata.

They would hand the pod devices, mounts or hooks of the host, or another runtime.
"""

from __future__ import annotations

from collections.abc import Iterator

from webhook.pod.container import display_name
from webhook.pod.runtime_annotations import reaches_runtime
from webhook.rules.rule import FieldMessage, Rule, Severity, Subject
from webhook.wellknown import INITDATA


def check(subject: Subject) -> Iterator[FieldMessage]:
    allowed = subject.pod.configuration.hypervisorAnnotations
    for key in subject.pod.annotations:
        if reaches_runtime(key) and key != INITDATA and key not in allowed:
            yield (
                f"metadata.annotations[{display_name(key)}]",
                "remove this annotation, which the container runtime or the hypervisor reads,"
                " or have the operator add it to hypervisorAnnotations",
            )


RULE = Rule(
    id="isolation/hypervisor-annotations",
    severity=Severity.HIGH,
    summary="no annotation changes the hypervisor or the container runtime",
    check=check,
)
