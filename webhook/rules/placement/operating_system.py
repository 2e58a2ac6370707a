"""The pod runs Linux: only Linux guests attest, and the API server refuses the injected container in a Windows pod."""

from __future__ import annotations

from collections.abc import Iterator

from webhook.rules.rule import FieldMessage, Rule, Severity, Subject


def check(subject: Subject) -> Iterator[FieldMessage]:
    if (subject.pod.spec.get("os") or {}).get("name") not in (None, "linux"):
        yield "spec.os.name", "only Linux pods can be confidential; remove os or set os.name: linux"


RULE = Rule(
    id="placement/operating-system",
    severity=Severity.HIGH,
    summary="the pod runs Linux",
    check=check,
    needed_for_injection=True,
)
