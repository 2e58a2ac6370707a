"""Attestation records on disk, bounded: lines of JSON in a few segments; the oldest goes when the newest is full.

A record holds the decision, every check with actual and required, and claims. Never a token, a nonce or evidence.

Records of pods with a verified token, and of logins, have segments and a bound of their own (`vouched.N.jsonl`): a
stranger's requests fill `verdicts.N.jsonl` alone. In each of the two, a line names the SHA-256 of the line before it,
so a line that was changed, removed or slipped in later shows. An account that may rewrite the whole folder can make a
new chain, or cut its end off; then the hashes in the verifier's log, kept elsewhere, still differ.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from server import logs

SEGMENTS = 4
VOUCHED, UNVOUCHED = "vouched", "verdicts"
_MODE = 0o600
_FIRST = "0" * 64
_VOUCHED_SHARE = 0.75
# `json.dumps` would make an encoder for each record.
_encode = json.JSONEncoder(separators=(",", ":")).encode


class RecordStore:
    """Appends to `folder` (made with mode 0700), at most `size` bytes in all. Raises OSError for an unusable folder."""

    def __init__(self, folder: Path, size: int) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        vouched = int(size * _VOUCHED_SHARE)
        self._vouched = _Chain(folder, VOUCHED, vouched)
        self._unvouched = _Chain(folder, UNVOUCHED, size - vouched)

    def add(self, record: Mapping[str, Any], *, vouched: bool) -> str | None:
        """Keep one record, and return the SHA-256 of its line.

        A full disk costs the record, and says so: it must not stop attestation.
        """
        try:
            return (self._vouched if vouched else self._unvouched).add(record)
        except OSError as error:
            logs.error("verdict_not_kept", exception=error, errno=error.errno)
            return None

    def close(self) -> None:
        """Close the files."""
        self._vouched.close()
        self._unvouched.close()


class _Chain:
    """The segments of one name."""

    def __init__(self, folder: Path, name: str, size: int) -> None:
        self._folder = folder
        self._name = name
        self._segment_size = size // SEGMENTS
        self._last = _last_hash(folder, name)
        self._file = self._open()

    def add(self, record: Mapping[str, Any]) -> str:
        line = _encode({**record, "previous": self._last}).encode()
        if os.fstat(self._file).st_size + len(line) + 1 > self._segment_size:
            self._turn()
        written = os.write(self._file, line + b"\n")
        self._last = _hash(line[:written])
        if written <= len(line):
            raise OSError(28, "No space left on device")
        return self._last

    def close(self) -> None:
        os.close(self._file)

    def _turn(self) -> None:
        for number in range(SEGMENTS - 1, 0, -1):
            newer = _path(self._folder, self._name, number - 1)
            if newer.exists():
                newer.replace(_path(self._folder, self._name, number))
        os.close(self._file)
        self._file = self._open()

    def _open(self) -> int:
        path = _path(self._folder, self._name, 0)
        file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, _MODE)
        size = os.fstat(file).st_size
        if size and os.pread(file, 1, size - 1) != b"\n":
            os.write(file, b"\n")  # a crash has cut the last line: the next one starts on its own
        return file


@dataclass(frozen=True, slots=True)
class Kept:
    """What a folder holds. `broken`: places where the chain does not hold, as `FILE line N`.

    A record's `sha256` is that of its line, which the line itself does not have.
    """

    records: tuple[dict[str, Any], ...]
    broken: tuple[str, ...]


def find_records(folder: Path, identifier: str) -> Kept:
    """All records with this correlation id, oldest first. Raises OSError when the folder cannot be read."""
    needle = json.dumps(identifier).encode()
    records: list[dict[str, Any]] = []
    broken: list[str] = []
    if not folder.is_dir():
        raise FileNotFoundError(2, "no such folder", str(folder))
    for name in (VOUCHED, UNVOUCHED):
        previous: str | None = None
        for place, line in _lines(folder, name):
            record = _record(line) if previous is not None or needle in line else None
            # The oldest line's predecessor is gone with its segment; a line that a crash cut is no record.
            if record and previous is not None and record.get("previous") != previous:
                broken.append(place)
            if record and needle in line and record.get("id") == identifier:
                records.append(record | {"sha256": _hash(line)})
            previous = _hash(line)
    return Kept(tuple(sorted(records, key=lambda record: str(record.get("at")))), tuple(broken))


def read_vouched(folder: Path) -> Iterator[dict[str, Any]]:
    """The records of pods and logins, oldest first. Raises OSError."""
    for _, line in _lines(folder, VOUCHED):
        if record := _record(line):
            yield record


def _lines(folder: Path, name: str) -> Iterator[tuple[str, bytes]]:
    """(place, line without its end), oldest first."""
    for number in range(SEGMENTS - 1, -1, -1):
        path = _path(folder, name, number)
        if path.exists():
            with path.open("rb") as file:
                for count, line in enumerate(file, 1):
                    yield f"{path.name} line {count}", line.rstrip(b"\n")


def _last_hash(folder: Path, name: str) -> str:
    last: bytes | None = None
    for number in range(SEGMENTS):
        path = _path(folder, name, number)
        with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
            for line in file:
                last = line
        if last is not None:
            return _hash(last.rstrip(b"\n"))
    return _FIRST


def _hash(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()


def _record(line: bytes) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def _path(folder: Path, name: str, number: int) -> Path:
    return folder / f"{name}.{number}.jsonl"
