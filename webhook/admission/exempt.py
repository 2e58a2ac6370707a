"""Pods exempt from the policy: Knative's own dry run, and mirrors of static pods."""

from __future__ import annotations

from typing import Any

from webhook.configuration.model import Configuration
from webhook.request import Request
from webhook.wellknown import MIRROR


def exemption(request: Request, configuration: Configuration) -> str | None:
    """Why the pod is exempt; None when it is not.

    Knative's webhook tries a Service's containers as a pod without labels and annotations; the user who dry-runs it
    identifies it. A mirror pod only reports what a kubelet runs already. Every author can write its annotation, so the
    user has to be that kubelet.
    """
    if request.dry_run and request.operation == "CREATE" and request.user.name in configuration.identities.knative:
        return "knative-dry-run"
    if is_mirror(request.object or {}, request):
        return "mirror-pod"
    return None


def is_mirror(pod: dict[str, Any], request: Request) -> bool:
    """Whether a kubelet reports its own static pod."""
    metadata, spec = pod.get("metadata") or {}, pod.get("spec") or {}
    return (
        MIRROR in (metadata.get("annotations") or {})
        and "system:nodes" in request.user.groups
        and request.user.name == f"system:node:{spec.get('nodeName')}"
    )
