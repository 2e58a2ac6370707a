"""Searches everything that the demo left behind for the plaintext, which must not be there."""

from __future__ import annotations

import base64
import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

from demo.transcript import UnexpectedError

# A word that is in every place: a place without it was not searched.
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
    """Search argv and environment of this process and its descendants. Their number; raises UnexpectedError."""
    family = _family()
    for process in family:
        folder = Path("/proc", str(process))
        try:
            content = (folder / "cmdline").read_bytes() + (folder / "environ").read_bytes()
        except OSError:  # it has just exited
            continue
        if any(form in content for form in forms(value)):
            raise UnexpectedError(f"process {process} holds the secret in its arguments or environment")
    return len(family)


def _family() -> set[int]:
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # After the name in parentheses, which may hold anything: the state, then the parent (proc(5)).
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    family = {os.getpid()}
    while found := {process for process, parent in parents.items() if parent in family} - family:
        family |= found
    return family
