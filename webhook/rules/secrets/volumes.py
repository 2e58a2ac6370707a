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
    for position, each in enumerate(volumes):
        projected = each.get("projected")
        if projected and each.get("name") != TOKEN_VOLUME and _has_verifiers_token(projected, subject):
            yield (
                f"spec.volumes[{position}]",
                "remove this service account token for the verifier's audience: only morphisms-init may hold one",
            )
    if pod.profile is None or not pod.profile.injects or pod.injected is None:
        return
    places = {volume.get("name"): index for index, volume in enumerate(volumes)}
    for wanted in pod.template.volumes:
        index = places.get(wanted["name"])
        if index is None:
            yield "spec.volumes", f"volume {wanted['name']} is missing; leave the volumes to injection"
        elif subject.old is None and not is_injected_volume(volumes[index], wanted):
            yield (
                f"spec.volumes[{index}]",
                f"volume {wanted['name']} is not the injected, memory-backed one; rename yours",
            )


def _has_verifiers_token(projected: dict[str, Any], subject: Subject) -> bool:
    for source in projected.get("sources") or ():
        # A token without an audience is for the API server: the one that every pod gets.
        audience = (source.get("serviceAccountToken") or {}).get("audience")
        if audience is not None and audience in _audiences(subject):
            return True
    return False


def _audiences(subject: Subject) -> frozenset[str]:
    """Of the pod's own verifier and of every other: the pod's author chooses by which template a pod is injected."""
    pod, templates = subject.pod, subject.snapshot.templates if subject.snapshot is not None else None
    own = {pod.template.verifier.audience, pod.configuration.verifier.audience}
    return frozenset(own if templates is None else own | templates.audiences)


RULE = Rule(
    id="secrets/volumes",
    severity=Severity.CRITICAL,
    summary="secrets are stored on memory-backed volumes",
    check=check,
    needed_for_injection=True,
)
