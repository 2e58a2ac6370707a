"""A container's mounts: where the host or the guest brings each of its volumes from."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from typing import Any, Final

from measured.refusal import Refusals, is_object, member, objects

_COPIED: Final = ("configMap", "secret", "projected", "downwardAPI")
_SERVICE_ACCOUNT: Final = "/var/run/secrets/kubernetes.io/serviceaccount"


def mounts(
    container: Mapping[str, Any],
    volumes: Mapping[str, Mapping[str, Any]],
    has_token: bool,
    copies_claims: bool,
    where: str,
    refusals: Refusals,
) -> dict[str, dict[str, str]]:
    """Destination → `{from: memory | disk | copied, access: ro | rw}`, with `volume` where the guest tells them apart.

    `has_token`: the API server mounts the service account's token where nothing else is mounted. `copies_claims`: a
    persistent volume is measured as what a guest without a shared file system gets, a copy of its files.
    """
    found: dict[str, dict[str, str]] = {}
    for mount in objects(container.get("volumeMounts")):
        destination = str(mount.get("mountPath", ""))
        at = f"{where}.volumeMounts[{destination}]"
        if posixpath.normpath(destination) != destination or not destination.startswith("/"):
            refusals.add(at, "is not an absolute path in its shortest form, such as /etc/settings")
        elif destination in found:
            refusals.add(at, "is mounted twice")
        else:
            _check_options(mount, at, refusals)
            measured = _mount(str(mount.get("name", "")), mount, volumes, copies_claims, at, refusals)
            if measured is not None:
                found[destination] = measured
    refusals.unless_empty(
        container.get("volumeDevices"), f"{where}.volumeDevices", "a raw device is the host's; remove it"
    )
    if has_token:
        found.setdefault(_SERVICE_ACCOUNT, {"from": "copied", "access": "ro"})
    return found


def mounts_token(spec: Mapping[str, Any], automounts: bool) -> bool:
    """Whether the API server adds the service account's token. `automounts`: what the account itself says."""
    own = spec.get("automountServiceAccountToken")
    return own if isinstance(own, bool) else automounts


def _check_options(mount: Mapping[str, Any], at: str, refusals: Refusals) -> None:
    for name in ("subPath", "subPathExpr"):
        refusals.unless_empty(mount.get(name), f"{at}.{name}", "guests cannot mount a part of a volume; mount it whole")
    if mount.get("mountPropagation") not in (None, "None"):
        refusals.add(f"{at}.mountPropagation", "is not passed on to a guest; remove it")
    if mount.get("recursiveReadOnly") not in (None, "Disabled"):
        refusals.add(f"{at}.recursiveReadOnly", "is not passed on to a guest; remove it")


def _mount(
    name: str,
    mount: Mapping[str, Any],
    volumes: Mapping[str, Mapping[str, Any]],
    copies_claims: bool,
    at: str,
    refusals: Refusals,
) -> dict[str, str] | None:
    volume = volumes.get(name)
    if volume is None:
        refusals.add(f"{at}.name", "names no volume of the pod")
        return None
    access = "ro" if mount.get("readOnly") else "rw"
    if any(is_object(volume.get(kind)) for kind in _COPIED):
        return {"from": "copied", "access": "ro"}
    if copies_claims and is_object(volume.get("persistentVolumeClaim")):
        return {"from": "copied", "access": access}
    if "emptyDir" in volume:
        medium = member(volume, "emptyDir").get("medium") or ""
        if medium in ("", "Memory"):
            return {"from": "memory" if medium else "disk", "access": access, "volume": name}
    kinds = ", ".join(sorted(set(volume) - {"name"})) or "emptyDir"
    refusals.add(
        f"spec.volumes[{name}]",
        f"{kinds} brings the host's content or device; use an emptyDir, or fetch it as a secret",
    )
    return None
