"""Writing a file that nobody ever sees half."""

from __future__ import annotations

import os
from pathlib import Path

from server.files import UnusableInputError


def write_whole(path: Path, content: bytes, mode: int) -> None:
    """Whole or not at all, and never readable for others, not even for a moment. Raises UnusableInputError."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise UnusableInputError(f"{path}: cannot be written: {error.strerror}") from None
