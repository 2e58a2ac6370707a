"""Step 2: the nodes that the pod may land on: required node affinity, and tolerations."""

from __future__ import annotations

from typing import Any

from webhook.configuration.profiles import Profile
from webhook.pod.pod import Pod
from webhook.rewrite.patch import Patch

_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"


def confine_to_nodes(patch: Patch, pod: Pod, profile: Profile) -> None:
    """AND the profile's requirements into every node selector term: terms are ORed, so one more would widen them."""
    if profile.requirements:
        _confine_affinity(patch, pod, profile)
    _tolerate(patch, pod, profile)


def _confine_affinity(patch: Patch, pod: Pod, profile: Profile) -> None:
    everything = [requirement.expression for requirement in profile.requirements]
    selector: dict[str, Any] = {"nodeSelectorTerms": [{"matchExpressions": everything}]}
    affinity = pod.spec.get("affinity")
    if not affinity:
        patch.add(("spec", "affinity"), {"nodeAffinity": {_REQUIRED: selector}})
        return
    node_affinity = affinity.get("nodeAffinity")
    if not node_affinity:
        patch.add(("spec", "affinity", "nodeAffinity"), {_REQUIRED: selector})
        return
    required = node_affinity.get(_REQUIRED)
    if not required or not required.get("nodeSelectorTerms"):
        patch.add(("spec", "affinity", "nodeAffinity", _REQUIRED), selector)
        return
    for index, term in enumerate(required["nodeSelectorTerms"]):
        _confine_term(patch, index, term, profile)


def _confine_term(patch: Patch, index: int, term: dict[str, Any], profile: Profile) -> None:
    present = term.get("matchExpressions") or []
    if not present and not term.get("matchFields"):
        # A term without any requirement matches no node at all; ours would make it match some.
        return
    missing = [
        requirement.expression
        for requirement in profile.requirements
        if not any(requirement.implied_by(expression) for expression in present)
    ]
    path = ("spec", "affinity", "nodeAffinity", _REQUIRED, "nodeSelectorTerms", index, "matchExpressions")
    patch.extend(path, present, missing)


def _tolerate(patch: Patch, pod: Pod, profile: Profile) -> None:
    present = pod.spec.get("tolerations") or []
    missing = [toleration.object for toleration in profile.tolerations if toleration.object not in present]
    patch.extend(("spec", "tolerations"), present, missing)
