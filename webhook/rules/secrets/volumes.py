"""The secrets lie in memory, and the token for the verifier is the verifier's alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from plan.layout import TOKEN_VOLUME
from webhook.pod.quantity import same_amount
from webhook.rules.rule import Finding, Rule, Severity, Subject


def check(subject: Subject) -> Iterator[Finding]:
    pod = subject.pod
    audience = pod.configuration.verifier.audience
    for place, each in enumerate(pod.spec.get("volumes") or ()):
        if each.get("projected") and each.get("name") != TOKEN_VOLUME and _has_token_for(audience, each):
            yield (
                f"spec.volumes[{place}]",
                "remove this service account token for the verifier's audience: only morphisms-init may hold one",
            )
    if pod.profile is None or not pod.profile.injects or pod.injected is None:
        return
    present = {volume.get("name"): (index, volume) for index, volume in enumerate(pod.spec.get("volumes") or ())}
    for wanted in pod.configuration.injection.volumes:
        index, volume = present.get(wanted["name"], (None, None))
        if volume is None:
            yield "spec.volumes", f"volume {wanted['name']} is missing"
        elif subject.old is None and not _is_same(volume, wanted):
            yield f"spec.volumes[{index}]", f"volume {wanted['name']} is not the memory-backed one; rename yours"


def _is_same(volume: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Equal, but for another way to write the size limit."""
    if volume == wanted:
        return True
    memory, limit = volume.get("emptyDir") or {}, (wanted.get("emptyDir") or {}).get("sizeLimit")
    return (
        same_amount(memory.get("sizeLimit"), limit) and {**volume, "emptyDir": {**memory, "sizeLimit": limit}} == wanted
    )


def _has_token_for(audience: str, volume: dict[str, Any]) -> bool:
    sources = (volume.get("projected") or {}).get("sources") or ()
    return any((source.get("serviceAccountToken") or {}).get("audience") == audience for source in sources)


RULE = Rule(
    id="secrets/volumes",
    severity=Severity.CRITICAL,
    summary="secrets lie on memory-backed volumes",
    check=check,
    needed_for_injection=True,
)
