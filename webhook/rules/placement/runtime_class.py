"""The pod runs under one of its profile's RuntimeClasses, by exact name: one with a similar name may not be a TEE."""

from __future__ import annotations

from collections.abc import Iterator

from webhook.pod.container import display_name
from webhook.rules.rule import FieldMessage, Rule, Severity, Subject


def check(subject: Subject) -> Iterator[FieldMessage]:
    profile = subject.pod.profile
    if profile is None or not profile.runtimeClasses:
        return
    name = subject.pod.spec.get("runtimeClassName")
    if not name:
        yield "spec.runtimeClassName", f"set runtimeClassName: {profile.runtimeClasses[0]}"
    elif name not in profile.runtimeClasses:
        yield (
            "spec.runtimeClassName",
            f"RuntimeClass {display_name(name)} does not belong to profile {profile.name};"
            f" remove runtimeClassName or use {' or '.join(profile.runtimeClasses)}",
        )


RULE = Rule(
    id="placement/runtime-class",
    severity=Severity.CRITICAL,
    summary="the pod runs under a RuntimeClass of its profile",
    check=check,
    needed_for_injection=True,
)
