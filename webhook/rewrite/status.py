"""Step 7: the status annotation, which names the template and the configuration that a pod was rewritten by."""

from __future__ import annotations

import json

from webhook.pod.pod import Pod
from webhook.rewrite.patch import Patch
from webhook.wellknown import STATUS, SUPPORTED_INJECTOR_VERSIONS


def set_status(patch: Patch, pod: Pod) -> None:
    """Write the status; a pod that was rewritten before, and needs no change, keeps its own."""
    if not patch.operations and _has_supported_status(pod):
        return
    status = pod.configuration.container_template.status(pod.profile_name)
    if pod.annotations.get(STATUS) == status:
        return
    patch.annotate((), STATUS, status)


def _has_supported_status(pod: Pod) -> bool:
    """Whether the pod's status names a version of the template that this webhook still renders."""
    try:
        status = json.loads(pod.annotations.get(STATUS, ""))
    except (ValueError, RecursionError):
        return False
    version = status.get("injector") if isinstance(status, dict) else None
    return type(version) is int and version in SUPPORTED_INJECTOR_VERSIONS
