"""What a pod's containers take together, as the scheduler and the kubelet sum it (k8s.io/component-helpers)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from measured.refusal import objects


def most_at_once(spec: Mapping[str, Any], amount: Callable[[dict[str, Any]], Decimal]) -> Decimal:
    """Containers and native sidecars together, or an init container with the sidecars before it, whichever is more.

    `amount`: of one container.
    """
    sidecars = most = Decimal(0)
    for container in objects(spec.get("initContainers")):
        own = amount(container)
        most = max(most, sidecars + own)
        if container.get("restartPolicy") == "Always":
            sidecars += own
    return max(most, sidecars + sum(map(amount, objects(spec.get("containers"))), Decimal(0)))
