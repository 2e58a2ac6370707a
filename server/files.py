"""Reading a file that people wrote: whole, up to a limit, or one line that says why not."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO, Final

MAX_FILE_BYTES: Final = 1 << 20
"""Enough for a configuration, a certificate, a key or a policy."""


class UnusableInputError(Exception):
    """Input that cannot be used: one line, `FILE[:LINE]: what is wrong`, and no value of the file."""


def read_bounded(path: Path, limit: int = MAX_FILE_BYTES) -> bytes:
    """The file's content, of at most `limit` bytes. Raises UnusableInputError.

    One bounded read, so that a file that grows and a device without an end are bounded too.
    """
    try:
        with path.open("rb") as file:
            return read_stream(file, str(path), limit)
    except OSError as error:
        raise UnusableInputError(f"{path}: cannot be read: {error.strerror}") from None


def read_stream(stream: BinaryIO, name: str, limit: int = MAX_FILE_BYTES) -> bytes:
    """As `read_bounded`, of an open file; `name` stands for it in the message. Lets OSError through."""
    content = stream.read(limit + 1)
    if len(content) > limit:
        raise UnusableInputError(f"{name}: larger than {limit} bytes")
    return content
