"""Step 4: the memory-backed volumes, the projected token, and the group that reads the files."""

from __future__ import annotations

from webhook.pod.pod import Pod
from webhook.rewrite.patch import Patch


def add_volumes(patch: Patch, pod: Pod) -> None:
    """Add what is missing; a volume that has one of our names and is another stays, for a rule to refuse."""
    present = pod.spec.get("volumes") or []
    names = {volume.get("name") for volume in present}
    missing = [volume for volume in pod.configuration.container_template.volumes if volume["name"] not in names]
    if missing and not present:
        patch.add(("spec", "volumes"), missing)
        return
    for offset, volume in enumerate(missing):
        patch.add(("spec", "volumes", len(present) + offset), volume)


def set_fs_group(patch: Patch, pod: Pod) -> None:
    """Give the pod a group where files are published for readers that do not own them and it has none."""
    if not pod.consumers or pod.file_owner is not None:
        return
    security = pod.spec.get("securityContext")
    if not security:
        patch.add(("spec", "securityContext"), {"fsGroup": pod.configuration.sidecar.fsGroup})
    elif security.get("fsGroup") is None:
        patch.add(("spec", "securityContext", "fsGroup"), pod.configuration.sidecar.fsGroup)
