"""Secrets are stored in memory, and only morphisms-init has a token for the verifier."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from plan.layout import TOKEN_VOLUME
from webhook.rewrite.volumes import is_injected_volume
from webhook.rules.rule import FieldMessage, Rule, Severity, Subject


def check(subject: Subject) -> Iterator[FieldMessage]:
    pod = subject.pod
    volumes = pod.spec.get("volumes") or ()
    audiences = _audiences(subject) if any(each.get("projected") for each in volumes) else frozenset[str]()
    for position, each in enumerate(volumes):
        if each.get("projected") and each.get("name") != TOKEN_VOLUME and _has_token_for(audiences, each):
            yield (
                f"spec.volumes[{position}]",
                "remove this service account token for the verifier's audience: only morphisms-init may hold one",
            )
    if pod.profile is None or not pod.profile.injects or pod.injected is None:
        return
    present = {volume.get("name"): (index, volume) for index, volume in enumerate(volumes)}
    for wanted in pod.template.volumes:
        index, volume = present.get(wanted["name"], (None, None))
        if volume is None:
            yield "spec.volumes", f"volume {wanted['name']} is missing; leave the volumes to injection"
        elif subject.old is None and not is_injected_volume(volume, wanted):
            yield (
                f"spec.volumes[{index}]",
                f"volume {wanted['name']} is not the injected, memory-backed one; rename yours",
            )


def _audiences(subject: Subject) -> frozenset[str]:
    """Of the pod's own verifier and of every other: the pod's author chooses by which template a pod is injected."""
    pod, templates = subject.pod, subject.snapshot.templates if subject.snapshot is not None else None
    own = {pod.template.verifier.audience, pod.configuration.verifier.audience}
    return frozenset(own if templates is None else own | templates.audiences)


def _has_token_for(audiences: frozenset[str], volume: dict[str, Any]) -> bool:
    sources = (volume.get("projected") or {}).get("sources") or ()
    return any((source.get("serviceAccountToken") or {}).get("audience") in audiences for source in sources)


RULE = Rule(
    id="secrets/volumes",
    severity=Severity.CRITICAL,
    summary="secrets are stored on memory-backed volumes",
    check=check,
    needed_for_injection=True,
)
