"""What a container takes from its image: the `config` object of an OCI image configuration."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_NUMERIC_USER: Final = re.compile(r"(0|[1-9][0-9]{0,9})(?::(0|[1-9][0-9]{0,9}))?")
_LISTS: Final = ("Env", "Entrypoint", "Cmd")
_TEXTS: Final = ("User", "WorkingDir")


class ImageError(ValueError):
    """The configuration cannot be used; the message names the member."""


@dataclass(frozen=True, slots=True)
class Image:
    """One image's configuration. `volumes` are paths for which the runtime would make volumes of its own."""

    env: tuple[str, ...] = ()
    user: str = ""
    working_dir: str = ""
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()

    @property
    def uid(self) -> int | None:
        """The numeric user; None for a name, which no runtime can resolve without the image's layers."""
        if not self.user:
            return 0
        match = _NUMERIC_USER.fullmatch(self.user)
        return int(match[1]) if match else None

    @property
    def gid(self) -> int:
        """The numeric group beside a numeric user; root's where none is named."""
        match = _NUMERIC_USER.fullmatch(self.user)
        return int(match[2]) if match and match[2] else 0


def read_image(config: object) -> Image:
    """The configuration in its JSON form. Members that say nothing about the process are ignored. Raises ImageError."""
    if not isinstance(config, dict):
        raise ImageError("is not an object")
    lists = {name: _texts(config, name) for name in _LISTS}
    texts = {name: _text(config, name) for name in _TEXTS}
    volumes = config.get("Volumes") or {}
    if not isinstance(volumes, dict):
        raise ImageError("Volumes is not an object")
    if any("=" not in entry[1:] for entry in lists["Env"]):
        raise ImageError("Env has an entry without a name and a value, such as PATH=/bin")
    return Image(
        env=lists["Env"],
        user=texts["User"],
        working_dir=texts["WorkingDir"],
        entrypoint=lists["Entrypoint"],
        cmd=lists["Cmd"],
        volumes=tuple(sorted(volumes)),
    )


def write_image(image: Image) -> dict[str, Any]:
    """The JSON form that `read_image` reads; members without content are left out."""
    members: dict[str, Any] = {
        "Env": list(image.env),
        "User": image.user,
        "WorkingDir": image.working_dir,
        "Entrypoint": list(image.entrypoint),
        "Cmd": list(image.cmd),
        "Volumes": {path: {} for path in image.volumes},
    }
    return {name: value for name, value in members.items() if value}


def digest_of(reference: object) -> str | None:
    """The digest in an image reference; None where it has none."""
    if not isinstance(reference, str):
        return None
    _, at, digest = reference.partition("@")
    return digest if at and DIGEST.fullmatch(digest) else None


def _texts(config: Mapping[str, Any], name: str) -> tuple[str, ...]:
    value = config.get(name)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ImageError(f"{name} is not a list of texts")
    return tuple(value)


def _text(config: Mapping[str, Any], name: str) -> str:
    value = config.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ImageError(f"{name} is not a text")
    return value
