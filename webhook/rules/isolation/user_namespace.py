"""No user namespace (`hostUsers: false`) around a VM: Kata's handlers support none, and the kubelet refuses the pod."""

from __future__ import annotations

from collections.abc import Iterator

from webhook.rules.rule import Finding, Rule, Severity, Subject


def check(subject: Subject) -> Iterator[Finding]:
    profile = subject.pod.profile
    if profile is not None and profile.isolation == "pod-vm" and subject.pod.spec.get("hostUsers") is False:
        yield (
            "spec.hostUsers",
            "remove hostUsers: false; the VM isolates the pod, and its runtime takes no user namespace",
        )


RULE = Rule(
    id="isolation/user-namespace",
    severity=Severity.MEDIUM,
    summary="a pod in its own VM asks for no user namespace",
    check=check,
    needed_for_injection=True,
)
