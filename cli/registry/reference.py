"""References to images: HOST/REPOSITORY:TAG@DIGEST."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from cli.registry.errors import RegistryError
from measured.image import DIGEST

_LONGEST: Final = 255
_NAME: Final = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
HOST: Final = re.compile(rf"(?:{_NAME}(?:\.{_NAME})*|\[[0-9a-fA-F:.]+\])(?::[0-9]{{1,5}})?")
"""A registry's name or address, with a port where it is not the scheme's own."""
_PART: Final = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
REPOSITORY: Final = re.compile(rf"{_PART}(?:/{_PART})*")
"""Distribution's grammar: no `..`, nothing that a URL would need to escape."""
_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


@dataclass(frozen=True, slots=True)
class Reference:
    """`text` is the reference as written; `host` is None where it names none."""

    text: str
    host: str | None
    repository: str
    tag: str | None
    digest: str | None

    def pinned(self, digest: str) -> str:
        """The reference to write in its place."""
        return f"{self.text.partition('@')[0]}@{digest}"


def parse_reference(text: str) -> Reference:
    """Read a reference as container runtimes do, but for a host that is left out. Raises RegistryError."""
    name, at, digest = text.partition("@")
    if at and not DIGEST.fullmatch(digest):
        raise RegistryError("the image reference's digest is not sha256: and 64 hexadecimal digits")
    host, slash, rest = name.partition("/")
    if not slash or not ("." in host or ":" in host or host == "localhost"):
        host, rest = "", name
    head, colon, tag = rest.rpartition(":")
    repository = head if colon else rest
    if (
        len(name) > _LONGEST
        or (host and not HOST.fullmatch(host))
        or not REPOSITORY.fullmatch(repository)
        or (colon and not _TAG.fullmatch(tag))
    ):
        raise RegistryError("is not an image reference, such as registry.example/app:v1@sha256:…")
    return Reference(text, host or None, repository, tag if colon else None, digest if at else None)
