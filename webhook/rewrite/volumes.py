"""Step 4: the memory-backed volumes, the projected token, and the group that reads the files."""

from __future__ import annotations

from typing import Any

from sidecar import plan as contract
from webhook.configuration import Configuration
from webhook.patch import Patch
from webhook.pod import Pod
from webhook.rewrite.plan import file_owner


def own_volumes(configuration: Configuration) -> tuple[dict[str, Any], ...]:
    """The three volumes, every field that the API server would default written out."""
    settings = configuration.sidecar
    return (
        {
            "name": contract.SECRETS_VOLUME,
            "emptyDir": {"medium": "Memory", "sizeLimit": settings.secretsSizeLimit},
        },
        {
            "name": contract.RUN_VOLUME,
            "emptyDir": {"medium": "Memory", "sizeLimit": settings.runSizeLimit},
        },
        {
            "name": contract.TOKEN_VOLUME,
            "projected": {
                # Only morphisms-init mounts it. The kubelet narrows the mode itself where the pod has an fsGroup.
                "defaultMode": 0o444,
                "sources": [
                    {
                        "serviceAccountToken": {
                            "audience": configuration.verifier.audience,
                            "expirationSeconds": contract.TOKEN_SECONDS,
                            "path": contract.TOKEN_FILE,
                        }
                    }
                ],
            },
        },
    )


def add_volumes(patch: Patch, pod: Pod) -> None:
    """Add what is missing; a volume that has one of our names and is another stays, for a rule to refuse."""
    present = pod.spec.get("volumes") or []
    names = {volume.get("name") for volume in present}
    missing = [volume for volume in own_volumes(pod.configuration) if volume["name"] not in names]
    if missing and not present:
        patch.add(("spec", "volumes"), missing)
        return
    for offset, volume in enumerate(missing):
        patch.add(("spec", "volumes", len(present) + offset), volume)


def set_fs_group(patch: Patch, pod: Pod) -> None:
    """Give the pod a group where files are published for readers that do not own them and it has none."""
    if not pod.consumers or file_owner(pod) is not None:
        return
    security = pod.spec.get("securityContext")
    if not security:
        patch.add(("spec", "securityContext"), {"fsGroup": pod.configuration.sidecar.fsGroup})
    elif security.get("fsGroup") is None:
        patch.add(("spec", "securityContext", "fsGroup"), pod.configuration.sidecar.fsGroup)
