"""Steps 1 and 2: the runtime class, and the nodes that the pod may land on."""

from __future__ import annotations

from typing import Any

from webhook.configuration.profiles import Profile
from webhook.pod.pod import Pod
from webhook.rewrite.patch import Patch
from webhook.snapshot import Snapshot

_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"


def set_runtime_class(patch: Patch, pod: Pod, profile: Profile, snapshot: Snapshot | None) -> None:
    """Set the profile's RuntimeClass. A different one stays, for a rule to refuse, unless the operator says replace.

    Replacing drops `overhead`, which the RuntimeClass admission plugin set from the old class and would refuse beside
    the new one, and the nodeSelector entries that the plugin merged from it.
    """
    if not profile.runtimeClasses:
        return
    current = pod.spec.get("runtimeClassName")
    wanted = profile.runtimeClasses[0]
    if not current:
        patch.add(("spec", "runtimeClassName"), wanted)
    elif current not in profile.runtimeClasses and pod.configuration.runtimeClassConflict == "replace":
        patch.replace(("spec", "runtimeClassName"), wanted)
        if "overhead" in pod.spec:
            patch.remove(("spec", "overhead"))
        old = snapshot.runtime_classes.get(current) if snapshot else None
        selector = pod.spec.get("nodeSelector") or {}
        for key, value in old.node_selector if old else ():
            if selector.get(key) == value:
                patch.remove(("spec", "nodeSelector", key))


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
    if not present:
        patch.add(path, missing)
        return
    for offset, expression in enumerate(missing):
        patch.add((*path, len(present) + offset), expression)


def _tolerate(patch: Patch, pod: Pod, profile: Profile) -> None:
    present = pod.spec.get("tolerations") or []
    missing = [toleration.object for toleration in profile.tolerations if toleration.object not in present]
    if not present and missing:
        patch.add(("spec", "tolerations"), missing)
        return
    for offset, toleration in enumerate(missing):
        patch.add(("spec", "tolerations", len(present) + offset), toleration)
