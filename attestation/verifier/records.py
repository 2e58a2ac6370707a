"""Attestation records on disk, bounded: lines of JSON in a few segments; the oldest goes when the newest is full.

A record holds the decision, every check with actual and required, and claims. Never a token, a nonce or evidence.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from server import logs

SEGMENTS = 4
_MODE = 0o600


class RecordStore:
    """Appends to `folder` (made with mode 0700), at most `size` bytes in all. Raises OSError for an unusable folder."""

    def __init__(self, folder: Path, size: int) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self._segment_size = size // SEGMENTS
        self._file = self._open()

    def add(self, record: Mapping[str, Any]) -> None:
        """Keep one record. A full disk costs the record, and says so: it must not stop attestation."""
        line = json.dumps(record, separators=(",", ":")).encode() + b"\n"
        try:
            if os.fstat(self._file).st_size + len(line) > self._segment_size:
                self._turn()
            os.write(self._file, line)
        except OSError as error:
            logs.error("verdict_not_kept", exception=error, errno=error.errno)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def _turn(self) -> None:
        for number in range(SEGMENTS - 1, 0, -1):
            newer = self._folder / _name(number - 1)
            if newer.exists():
                newer.replace(self._folder / _name(number))
        os.close(self._file)
        self._file = self._open()

    def _open(self) -> int:
        return os.open(self._folder / _name(0), os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, _MODE)


def find_records(folder: Path, identifier: str) -> list[dict[str, Any]]:
    """All records with this correlation id, oldest first. Raises OSError when the folder cannot be read."""
    needle = json.dumps(identifier).encode()
    found: list[dict[str, Any]] = []
    if not folder.is_dir():
        raise FileNotFoundError(2, "no such folder", str(folder))
    for number in range(SEGMENTS - 1, -1, -1):
        path = folder / _name(number)
        if not path.exists():
            continue
        with path.open("rb") as file:
            # A line that a crash cut in half is not a record.
            records = [_record(line) for line in file if needle in line]
        found += [record for record in records if record.get("id") == identifier]
    return found


def _record(line: bytes) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def _name(number: int) -> str:
    return f"verdicts.{number}.jsonl"
