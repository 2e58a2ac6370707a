"""A pod in its own VM has no user namespace (`hostUsers: false`): no Kata handler supports one."""

from __future__ import annotations

from collections.abc import Iterator

from webhook.rules.rule import FieldMessage, Rule, Severity, Subject


def check(subject: Subject) -> Iterator[FieldMessage]:
    profile = subject.pod.profile
    if profile is not None and profile.isolation == "pod-vm" and subject.pod.spec.get("hostUsers") is False:
        yield (
            "spec.hostUsers",
            "remove hostUsers: false: the VM isolates the pod, and its runtime does not support user namespaces",
        )


RULE = Rule(
    id="isolation/user-namespace",
    severity=Severity.MEDIUM,
    summary="a pod in its own VM has no user namespace",
    check=check,
    needed_for_injection=True,
)
