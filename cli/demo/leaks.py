"""Looks for the plaintext in everything that the story left behind: it must be nowhere."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path

from cli.demo.story import UnexpectedError

# One word that is everywhere: what it cannot be found in was not looked at.
_EVERYWHERE = b"payments"


def forms(value: str) -> tuple[bytes, ...]:
    """The value as it is, and as it could be hidden in an object: hexadecimal, base64 at each alignment."""
    raw = value.encode()
    # Of base64 the characters that hang on what stands before and behind are left out.
    aligned = (base64.b64encode(bytes(shift) + raw + bytes(2))[4 if shift else 0 : -8] for shift in range(3))
    return (raw, raw.hex().encode(), *aligned)


def look_for(value: str, documents: Mapping[str, bytes]) -> None:
    """Raises UnexpectedError when a document holds the value, or was not worth looking at."""
    for name, content in documents.items():
        if _EVERYWHERE not in content:
            raise UnexpectedError(f"{name} does not even name the Service: nothing was looked at")
        if any(form in content for form in forms(value)):
            raise UnexpectedError(f"{name} holds the secret in plain text")


def look_in_files(value: str, folder: Path) -> int:
    """All files below the folder: logs, configurations, audit. How many; raises UnexpectedError."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    for path in files:
        if any(form in path.read_bytes() for form in forms(value)):
            raise UnexpectedError(f"{path.relative_to(folder)} holds the secret in plain text")
    return len(files)


def look_in_processes(value: str) -> int:
    """Arguments and environments of all processes that may be looked at. How many; raises UnexpectedError."""
    seen = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            content = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        except OSError:  # gone, or somebody else's
            continue
        seen += 1
        if any(form in content for form in forms(value)):
            raise UnexpectedError(f"process {process.name} holds the secret in its arguments or environment")
    return seen
