"""SIGTERM and SIGINT: they interrupt waits, never the middle of a step.

A handler that raised anywhere could lose a token between its arrival and the code that revokes it, or leave half of
a folder. So the handler only sets a flag, and raises in those waits that are marked as interruptible.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from sidecar.errors import SidecarError
from sidecar.reasons import Reason


class StoppedError(SidecarError):
    """SIGTERM or SIGINT arrived."""

    def __init__(self) -> None:
        super().__init__(Reason.STOPPED, "stopped by a signal before the secrets were published")


class ShutdownSignal:
    """Whether SIGTERM or SIGINT has arrived."""

    def __init__(self) -> None:
        self._requested = False
        self._interruptible = False

    def listen(self) -> None:
        """Handle SIGTERM and SIGINT from now on."""
        signal.signal(signal.SIGTERM, self._handle)
        signal.signal(signal.SIGINT, self._handle)

    def ignore(self) -> None:
        """Ignore both: an interpreter that exits restores the default action, which would hide the exit code."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def check(self) -> None:
        """Raises StoppedError after a signal."""
        if self._requested:
            raise StoppedError

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """A wait that a signal ends at once by StoppedError."""
        self._interruptible = True
        try:
            self.check()
            yield
        finally:
            self._interruptible = False

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        self._requested = True
        if self._interruptible:
            self._interruptible = False
            raise StoppedError
