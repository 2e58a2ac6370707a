"""The files whose content the configuration's digest covers, each as it was read last.

A host may change a file between two readings. So the parts that use such a file read it here, and the digest is over
the very bytes that they got.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from attestation.verifier.configuration import VerifierConfiguration
from attestation.verifier.digests import configuration_digest
from server.files import MAX_FILE_BYTES, UnusableInputError, read_stream


class PinnedFiles:
    """Contents by path, held from the first reading on."""

    def __init__(self) -> None:
        self._contents: dict[Path, bytes] = {}
        self._digest: bytes | None = None

    def read(self, path: Path) -> bytes:
        """The file's content now, which is held from here on. Raises OSError, and ValueError for one too large."""
        try:
            with path.open("rb") as file:
                content = read_stream(file, str(path), MAX_FILE_BYTES)
        except UnusableInputError as error:
            raise ValueError(str(error)) from None
        if self._contents.get(path) != content:
            self._contents[path] = content
            self._digest = None
        return content

    def held(self, path: Path) -> bytes:
        """The content that was read last; read now where it has not been. Raises as `read` does."""
        found = self._contents.get(path)
        return self.read(path) if found is None else found

    @contextlib.contextmanager
    def copy(self, path: Path) -> Iterator[Path]:
        """A file in memory with the content that `read` returns, for what takes paths alone. Raises as `read` does."""
        content = self.read(path)
        descriptor = os.memfd_create("pinned", os.MFD_CLOEXEC)
        try:
            with os.fdopen(os.dup(descriptor), "wb") as file:
                file.write(content)
            yield Path(f"/proc/self/fd/{descriptor}")
        finally:
            os.close(descriptor)

    def configuration_digest(self, configuration: VerifierConfiguration) -> bytes:
        """Of the configuration with the contents that are in use. Raises as `read` does."""
        if self._digest is None:
            self._digest = configuration_digest(configuration, self.held)
        return self._digest
