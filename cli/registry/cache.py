"""Documents of registries by digest, kept between runs.

What is read is hashed again, so a cache that others can write to costs a request and nothing else.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path
from typing import Final

from cli.support.whole_file import write_whole
from server.files import UnusableInputError, read_bounded

_PREFIX: Final = "sha256-"
_MOST_FILES: Final = 2048
_MOST_BYTES: Final = 128 * 1024 * 1024


def default_folder() -> Path:
    """Below XDG_CACHE_HOME."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "morphisms" / "registry"


class Cache:
    """A folder of files named by digest. One that cannot be used holds nothing."""

    def __init__(self, folder: Path, most_files: int = _MOST_FILES, most_bytes: int = _MOST_BYTES) -> None:
        self._folder = folder
        self._most_files = most_files
        self._most_bytes = most_bytes

    def get(self, digest: str, limit: int) -> bytes | None:
        """The content with this digest (sha256:HEX), of at most `limit` bytes."""
        path = self._path(digest)
        try:
            if path.is_symlink() or not path.is_file():
                return None
            content = read_bounded(path, limit)
        except (OSError, UnusableInputError):
            return None
        return content if f"sha256:{hashlib.sha256(content).hexdigest()}" == digest else None

    def put(self, digest: str, content: bytes) -> None:
        """Keep content whose digest was checked; the oldest files go where there is too much."""
        with contextlib.suppress(OSError, UnusableInputError):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_whole(self._path(digest), content, 0o600)
            self._shrink()

    def _path(self, digest: str) -> Path:
        return self._folder / digest.replace(":", "-")

    def _shrink(self) -> None:
        with os.scandir(self._folder) as entries:
            files = [
                (entry.stat(follow_symlinks=False), entry.path)
                for entry in entries
                if entry.is_file(follow_symlinks=False) and entry.name.startswith(_PREFIX)
            ]
        files.sort(key=lambda each: each[0].st_mtime_ns, reverse=True)
        size = 0
        for number, (status, path) in enumerate(files, 1):
            size += status.st_size
            if number > self._most_files or size > self._most_bytes:
                Path(path).unlink()
