"""Step 5: the memory-backed volumes, the projected token, and the group that reads the files."""

from __future__ import annotations

from webhook.pod.pod import Pod
from webhook.rewrite.patch import Patch


def add_volumes(patch: Patch, pod: Pod) -> None:
    """Add the missing volumes. A different volume under one of their names stays, for a rule to refuse."""
    present = pod.spec.get("volumes") or []
    names = {volume.get("name") for volume in present}
    missing = [volume for volume in pod.configuration.container_template.volumes if volume["name"] not in names]
    patch.extend(("spec", "volumes"), present, missing)


def set_fs_group(patch: Patch, pod: Pod) -> None:
    """Give the pod a group where it has none and the readers of the files do not own them."""
    if not pod.consumers or pod.file_owner is not None:
        return
    security = pod.spec.get("securityContext")
    if not security:
        patch.add(("spec", "securityContext"), {"fsGroup": pod.configuration.sidecar.fsGroup})
    elif security.get("fsGroup") is None:
        patch.add(("spec", "securityContext", "fsGroup"), pod.configuration.sidecar.fsGroup)
