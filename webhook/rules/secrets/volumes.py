"""Secrets are stored in memory, and only morphisms-init has a token for the verifier."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from plan.layout import TOKEN_VOLUME
from webhook.quantity import same_amount
from webhook.rules.rule import FieldMessage, Rule, Severity, Subject


def check(subject: Subject) -> Iterator[FieldMessage]:
    pod = subject.pod
    audience = pod.configuration.verifier.audience
    for position, each in enumerate(pod.spec.get("volumes") or ()):
        if each.get("projected") and each.get("name") != TOKEN_VOLUME and _has_token_for(audience, each):
            yield (
                f"spec.volumes[{position}]",
                "remove this service account token for the verifier's audience: only morphisms-init may hold one",
            )
    if pod.profile is None or not pod.profile.injects or pod.injected is None:
        return
    present = {volume.get("name"): (index, volume) for index, volume in enumerate(pod.spec.get("volumes") or ())}
    for wanted in pod.configuration.container_template.volumes:
        index, volume = present.get(wanted["name"], (None, None))
        if volume is None:
            yield "spec.volumes", f"volume {wanted['name']} is missing; leave the volumes to injection"
        elif subject.old is None and not _equals_injected(volume, wanted):
            yield (
                f"spec.volumes[{index}]",
                f"volume {wanted['name']} is not the injected, memory-backed one; rename yours",
            )


def _equals_injected(volume: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Whether the two are equal; the size limit may be spelled otherwise."""
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
    summary="secrets are stored on memory-backed volumes",
    check=check,
    needed_for_injection=True,
)
