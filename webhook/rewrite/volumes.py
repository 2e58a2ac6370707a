"""Step 6: the memory-backed volumes, the projected token, and the group that reads the files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from webhook.pod.container import display_name
from webhook.pod.pod import Pod
from webhook.quantity import same_amount
from webhook.rewrite.patch import Patch


def add_volumes(patch: Patch, pod: Pod) -> None:
    """Add the missing volumes. A different volume under one of their names stays, for a rule to refuse."""
    present = pod.spec.get("volumes") or []
    names = {volume.get("name") for volume in present}
    missing = [volume for volume in pod.template.volumes if volume["name"] not in names]
    patch.extend(("spec", "volumes"), present, missing)


def has_injected_volumes(pod: Pod) -> bool:
    """Whether the pod has the volumes of its template."""
    present = {volume.get("name"): volume for volume in pod.spec.get("volumes") or ()}
    return all(is_injected_volume(present.get(wanted["name"]) or {}, wanted) for wanted in pod.template.volumes)


def is_injected_volume(volume: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Whether the two are equal; the size limit may be spelled otherwise."""
    if volume == wanted:
        return True
    memory, limit = volume.get("emptyDir") or {}, (wanted.get("emptyDir") or {}).get("sizeLimit")
    return (
        same_amount(memory.get("sizeLimit"), limit) and {**volume, "emptyDir": {**memory, "sizeLimit": limit}} == wanted
    )


def set_fs_group(patch: Patch, pod: Pod) -> None:
    """Give the pod a group where it has none and the readers of the files do not own them."""
    if not pod.consumers or pod.file_owner is not None:
        return
    security = pod.spec.get("securityContext")
    wanted: dict[str, Any] = {"fsGroup": pod.template.sidecar.fsGroup}
    if any(_claims(pod)) and not (security or {}).get("fsGroupChangePolicy"):
        # Else the kubelet changes the group of every file of a claim, at each start.
        wanted["fsGroupChangePolicy"] = "OnRootMismatch"
    if not security:
        patch.add(("spec", "securityContext"), wanted)
    elif security.get("fsGroup") is None:
        for member, value in wanted.items():
            patch.add(("spec", "securityContext", member), value)


def warnings_of(pod: Pod) -> Iterator[str]:
    """What becomes of claims when the pod gets its group from injection."""
    security = pod.spec.get("securityContext") or {}
    if not pod.consumers or pod.file_owner is not None or security.get("fsGroup") is not None:
        return
    for name in _claims(pod):
        yield (
            f"[volumes] injection sets fsGroup {pod.template.sidecar.fsGroup}, so the kubelet may give the files"
            f" of volume {display_name(name)} that group; set fsGroup, or one runAsUser for the containers with secrets"
        )


def _claims(pod: Pod) -> Iterator[str]:
    """Names of the volumes that outlive the pod, or that a storage class provides."""
    for volume in pod.spec.get("volumes") or ():
        if volume.get("persistentVolumeClaim") is not None or volume.get("ephemeral") is not None:
            yield str(volume.get("name"))
