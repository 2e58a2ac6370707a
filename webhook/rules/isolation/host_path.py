"""No hostPath volume: its content is the untrusted host's word, copied into the guest."""

from __future__ import annotations

from collections.abc import Iterator

from webhook.rules.rule import Finding, Rule, Severity, Subject


def check(subject: Subject) -> Iterator[Finding]:
    for index, volume in enumerate(subject.pod.spec.get("volumes") or ()):
        if volume.get("hostPath") is not None:
            yield f"spec.volumes[{index}].hostPath", "replace the hostPath volume; what it holds is the host's word"


RULE = Rule(
    id="isolation/host-path",
    severity=Severity.HIGH,
    summary="no volume is a path of the host",
    check=check,
)
