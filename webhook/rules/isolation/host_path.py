"""The pod has no hostPath volume: the untrusted host controls its content, which is copied into the guest."""

from __future__ import annotations

from collections.abc import Iterator

from webhook.rules.rule import FieldMessage, Rule, Severity, Subject


def check(subject: Subject) -> Iterator[FieldMessage]:
    for index, volume in enumerate(subject.pod.spec.get("volumes") or ()):
        if volume.get("hostPath") is not None:
            yield (
                f"spec.volumes[{index}].hostPath",
                "replace the hostPath volume, for example by an emptyDir: the untrusted host controls its content",
            )


RULE = Rule(
    id="isolation/host-path",
    severity=Severity.HIGH,
    summary="no volume is a hostPath",
    check=check,
)
