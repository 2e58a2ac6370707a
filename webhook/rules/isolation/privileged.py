"""No container is privileged: it would own the guest, and through it the other containers' secrets."""

from __future__ import annotations

from collections.abc import Iterator

from webhook.rules.rule import Finding, Rule, Severity, Subject


def check(subject: Subject) -> Iterator[Finding]:
    for container in subject.pod.containers:
        if (container.object.get("securityContext") or {}).get("privileged"):
            yield f"{container.field}.securityContext.privileged", "remove privileged: true"


RULE = Rule(
    id="isolation/privileged",
    severity=Severity.HIGH,
    summary="no container is privileged",
    check=check,
)
