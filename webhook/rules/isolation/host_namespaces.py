"""The pod has its own network, process and IPC namespaces: Kata does not support the host's."""

from __future__ import annotations

from collections.abc import Iterator

from webhook.rules.rule import FieldMessage, Rule, Severity, Subject


def check(subject: Subject) -> Iterator[FieldMessage]:
    for member in ("hostNetwork", "hostPID", "hostIPC"):
        if subject.pod.spec.get(member):
            yield f"spec.{member}", f"remove {member}: a confidential pod cannot share a namespace with its host"


RULE = Rule(
    id="isolation/host-namespaces",
    severity=Severity.CRITICAL,
    summary="the pod shares no namespace with its host",
    check=check,
    needed_for_injection=True,
)
