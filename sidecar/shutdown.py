"""SIGTERM: heard while we wait, never in the middle of a step.

A handler that raised anywhere could lose a token between its arrival and the place that revokes it, or leave half of
a folder. So the handler only takes a note, and raises in those waits that say they may be interrupted.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from sidecar.errors import SidecarError
from sidecar.reasons import Reason


class StoppedError(SidecarError):
    """Somebody asked us to end."""

    def __init__(self) -> None:
        super().__init__(Reason.STOPPED, "asked to stop before the secrets were published")


class ShutdownSignal:
    """Whether we were asked to end."""

    def __init__(self) -> None:
        self._requested = False
        self._interruptible = False

    def listen(self) -> None:
        """From now on SIGTERM and SIGINT are a request."""
        signal.signal(signal.SIGTERM, self._handle)
        signal.signal(signal.SIGINT, self._handle)

    def ignore(self) -> None:
        """All is said and done. An interpreter that ends would restore the default, which kills and hides our code."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def check(self) -> None:
        """Raises StoppedError after a request."""
        if self._requested:
            raise StoppedError

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """A wait that a request ends at once by StoppedError."""
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
