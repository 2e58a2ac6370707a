"""Pod Security's `restricted` level, as far as the generated pods touch it (kubernetes.io, Pod Security Standards)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Json = dict[str, Any]

_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}


def breaches(pod: Json) -> list[str]:
    """The parts of the pod that `restricted` forbids."""
    return list(_breaches(pod["spec"]))


def _breaches(spec: Json) -> Iterator[str]:
    for member in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(member):
            yield member
    for volume in spec.get("volumes") or []:
        sources = volume.keys() - {"name", "fromTheFuture"}
        if not sources <= _VOLUMES:
            yield "volume type"
    whole = spec.get("securityContext") or {}
    for group in ("initContainers", "containers", "ephemeralContainers"):
        for container in spec.get(group) or []:
            own = container.get("securityContext") or {}
            if own.get("privileged"):
                yield "privileged"
            if own.get("allowPrivilegeEscalation") is not False:
                yield "escalation"
            capabilities = own.get("capabilities") or {}
            if "ALL" not in (capabilities.get("drop") or []):
                yield "capabilities kept"
            if set(capabilities.get("add") or []) - {"NET_BIND_SERVICE"}:
                yield "capabilities added"
            if own.get("runAsNonRoot", whole.get("runAsNonRoot")) is not True:
                yield "may run as root"
            if own.get("runAsUser", whole.get("runAsUser")) == 0:
                yield "runs as root"
            seccomp = own.get("seccompProfile") or whole.get("seccompProfile") or {}
            if seccomp.get("type") not in ("RuntimeDefault", "Localhost"):
                yield "seccomp"
            if any(port.get("hostPort") for port in container.get("ports") or []):
                yield "host port"


def restrict(pod: Json, where: str) -> None:
    """Make the pod pass, by fields of the whole pod where they exist, or by fields of each container."""
    common = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    spec = pod["spec"]
    whole = spec.get("securityContext") or {}
    spec["securityContext"] = {key: value for key, value in whole.items() if (key, value) != ("runAsUser", 0)}
    if where == "pod":
        spec["securityContext"].update(common)
    for container in (*(spec.get("initContainers") or ()), *spec["containers"]):
        own = container.get("securityContext") or {}
        container["securityContext"] = {
            **{key: value for key, value in own.items() if (key, value) != ("runAsUser", 0)},
            **(common if where == "containers" else {}),
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        }
