"""A pod's volumes, as far as its containers here mount them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from demo import mounts
from webhook.quantity import amount_of

_DEFAULT_MODE = 0o644


class UnsupportedError(Exception):
    """The pod needs a feature that this small kubelet does not have; the text names it."""


def make_volumes(pod: dict[str, Any], folder: Path, tokens: dict[str, str], fs_group: int | None) -> dict[str, Path]:
    """Volume name → folder. `tokens`: VOLUME/PATH → the token that the API server gave for it."""
    made = {}
    for volume in pod["spec"].get("volumes") or ():
        target = folder / volume["name"]
        if volume.get("emptyDir", {}).get("medium") == "Memory":
            size = amount_of(volume["emptyDir"].get("sizeLimit"))
            # As the kubelet does for an fsGroup: the group may write, and hands itself down.
            mounts.tmpfs(target, 0o777 if fs_group is None else 0o2777, size=size, group=fs_group)
        elif "projected" in volume:
            mounts.tmpfs(target, 0o755)
            _project(volume, pod, target, tokens)
            mounts.protect(target)
        else:
            raise UnsupportedError(f"volume {volume['name']} is neither a memory emptyDir nor projected")
        made[volume["name"]] = target
    return made


def _project(volume: dict[str, Any], pod: dict[str, Any], target: Path, tokens: dict[str, str]) -> None:
    """Tokens and the downward API; no ConfigMaps, because no API server runs."""
    mode = volume["projected"].get("defaultMode", _DEFAULT_MODE)
    for source in volume["projected"]["sources"]:
        if "serviceAccountToken" in source:
            path = source["serviceAccountToken"]["path"]
            _write(target / path, tokens[f"{volume['name']}/{path}"], mode)
        for item in source.get("downwardAPI", {}).get("items", ()):
            _write(target / item["path"], field_of(pod, item["fieldRef"]["fieldPath"]), mode)


def field_of(pod: dict[str, Any], path: str) -> str:
    """A fieldRef's value. Raises UnsupportedError."""
    group, _, name = path.partition(".")
    value = pod.get(group, {}).get(name) if group in ("metadata", "spec") else None
    if not isinstance(value, str):
        raise UnsupportedError(f"fieldRef {path}")
    return value


def _write(path: Path, text: str, mode: int) -> None:
    path.write_text(text)
    path.chmod(mode)
