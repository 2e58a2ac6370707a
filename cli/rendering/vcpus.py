"""How many vCPUs a pod's guest has, and which measurement belongs to that number.

Kata's TEE classes size the guest when it starts (`static_sandbox_resource_mgmt`): the runtime's `default_vcpus`, and
the CPU limits that the kubelet reports for the pod, rounded up together (Go shim: `SandboxConfig` in
src/runtime/pkg/oci/utils.go). The kubelet sums the limits as the scheduler sums requests (`PodLimits` of
k8s.io/component-helpers): containers and native sidecars together, or an init container with the sidecars before it,
whichever is more; a limit of the whole pod replaces that. A container without a limit counts as zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import ROUND_CEILING, Decimal
from typing import Any

from cli.rendering.files import TrustedGuest
from cli.support.pod_resources import most_at_once
from measured.refusal import member
from webhook.quantity import amount_of, quantity_text


def cpu_limit(pod: Mapping[str, Any]) -> Decimal:
    """Of the whole pod, in cores."""
    spec = member(pod, "spec")
    return _limit(spec) or most_at_once(spec, _limit)


def vcpus(pod: Mapping[str, Any], base: int) -> int:
    """Of the pod's guest, where the runtime's configuration has `default_vcpus = base`."""
    return max(1, int((base + cpu_limit(pod)).to_integral_value(ROUND_CEILING)))


def measurements_of(pod: Mapping[str, Any], guests: Mapping[str, TrustedGuest]) -> list[str]:
    """Lines of a rendering's summary: the number of vCPUs, and the measurement that each guest has for it."""
    limit = quantity_text(cpu_limit(pod), "cpu")
    lines = [
        f"vCPUs           {vcpus(pod, base)}: the runtime's default_vcpus {base}, and CPU limits of {limit}, rounded up"
        for base in sorted({guest.baseVcpus for guest in guests.values()} or {TrustedGuest().baseVcpus})
    ]
    for name, guest in guests.items():
        if guest.measurements:
            count = vcpus(pod, guest.baseVcpus)
            digest = guest.measurements.get(count)
            missing = f"none for {count} vCPUs: the verifier will refuse the pod; run morphisms guest measure"
            lines.append(f"measurement     {name}: {missing if digest is None else digest.hex()}")
    return lines


def _limit(holder: Mapping[str, Any]) -> Decimal:
    return amount_of(member(member(holder, "resources"), "limits").get("cpu")) or Decimal(0)
