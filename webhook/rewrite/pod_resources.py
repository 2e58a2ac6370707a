"""Resources of the whole pod (Kubernetes 1.34): raised, so that `morphisms-init` fits into them.

The API server refuses a pod whose containers request more than the pod does, or a container with a higher limit.
https://kubernetes.io/docs/tasks/configure-pod-container/assign-pod-level-resources/
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from webhook.pod.pod import Pod
from webhook.quantity import amount_of, quantity_text
from webhook.rewrite.patch import Patch


def has_pod_resources(spec: dict[str, Any]) -> bool:
    """Whether the pod's own resources decide about its QoS class."""
    resources = spec.get("resources") or {}
    return bool(resources.get("requests") or resources.get("limits"))


def raise_pod_resources(patch: Patch, pod: Pod, container: dict[str, Any]) -> None:
    """Make room in the pod's resources for our container, which the patch has put in place or found there.

    A sidecar runs beside the application, so a new one adds to what the pod had; an init container runs before it.
    """
    resources = pod.spec.get("resources") or {}
    requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
    if not requests and not limits:
        return
    adds = pod.injected is None and container.get("restartPolicy") == "Always"
    for name in ("cpu", "memory"):
        before = amount_of(requests.get(name)), amount_of(limits.get(name))
        request, limit = (_amount(container, kind, name) for kind in ("requests", "limits"))
        needed, allowed = before
        if needed is not None:
            needed = max(needed + request * adds, _aggregate(patch.result["spec"], name))
        if allowed is not None:
            allowed = max(allowed + limit * adds, limit, needed or Decimal(0))
        if None not in before and before[0] == before[1]:
            needed = allowed  # a pod of class Guaranteed stays one
        for kind, old, new in (("requests", before[0], needed), ("limits", before[1], allowed)):
            if old is not None and new is not None and new > old:
                patch.replace(("spec", "resources", kind, name), quantity_text(new, name))


def _amount(container: dict[str, Any], kind: str, name: str) -> Decimal:
    """What a container requests, or its limit; a request that is left out is the limit, as the API server has it."""
    resources = container.get("resources") or {}
    found = amount_of((resources.get(kind) or {}).get(name))
    if found is None and kind == "requests":
        found = amount_of((resources.get("limits") or {}).get(name))
    return found or Decimal(0)


def _aggregate(spec: dict[str, Any], name: str) -> Decimal:
    """What the containers request together, at the moment when they request most."""
    beside = Decimal(0)
    most = Decimal(0)
    for each in spec.get("initContainers") or ():
        amount = _amount(each, "requests", name)
        most = max(most, beside + amount)
        if each.get("restartPolicy") == "Always":
            beside += amount
    return max(most, beside + _total(spec.get("containers") or (), name))


def _total(containers: Iterable[dict[str, Any]], name: str) -> Decimal:
    return sum((_amount(each, "requests", name) for each in containers), Decimal(0))
