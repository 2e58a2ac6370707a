"""The secrets lie in memory, and the token for the verifier is the verifier's alone."""

from __future__ import annotations

from collections.abc import Iterator

from webhook.rules.rule import Finding, Rule, Severity, Subject


def check(subject: Subject) -> Iterator[Finding]:
    pod = subject.pod
    if pod.profile is None or not pod.profile.injects or pod.injected is None:
        return
    present = {volume.get("name"): (index, volume) for index, volume in enumerate(pod.spec.get("volumes") or ())}
    for wanted in pod.configuration.injection.volumes:
        index, volume = present.get(wanted["name"], (None, None))
        if volume is None:
            yield "spec.volumes", f"volume {wanted['name']} is missing"
        elif subject.old is None and volume != wanted:
            yield f"spec.volumes[{index}]", f"volume {wanted['name']} is not the memory-backed one; rename yours"


RULE = Rule(
    id="secrets/volumes",
    severity=Severity.CRITICAL,
    summary="secrets lie on memory-backed volumes",
    check=check,
    needed_for_injection=True,
)
