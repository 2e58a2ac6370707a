"""The pod runs Linux: no other guest attests here, and the API server refuses our container in a Windows pod."""

from __future__ import annotations

from collections.abc import Iterator

from webhook.rules.rule import Finding, Rule, Severity, Subject


def check(subject: Subject) -> Iterator[Finding]:
    if (subject.pod.spec.get("os") or {}).get("name") not in (None, "linux"):
        yield "spec.os.name", "only Linux pods can be confidential here"


RULE = Rule(
    id="placement/operating-system",
    severity=Severity.HIGH,
    summary="the pod runs Linux",
    check=check,
    needed_for_injection=True,
)
