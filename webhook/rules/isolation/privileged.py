"""No container is privileged: it would control the guest, and with it the secrets of the other containers."""

from __future__ import annotations

from collections.abc import Iterator

from webhook.rules.rule import FieldMessage, Rule, Severity, Subject


def check(subject: Subject) -> Iterator[FieldMessage]:
    for container in subject.pod.containers:
        if (container.object.get("securityContext") or {}).get("privileged"):
            yield (
                f"{container.field}.securityContext.privileged",
                f"remove privileged: true from container {container.label}",
            )


RULE = Rule(
    id="isolation/privileged",
    severity=Severity.HIGH,
    summary="no container is privileged",
    check=check,
)
