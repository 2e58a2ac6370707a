"""SIGTERM and SIGINT: they interrupt waits, never the middle of a step.

A handler that raised anywhere could lose a token between its arrival and the code that revokes it, or leave half of
a folder. So the handler only sets a flag, and raises in those waits that are marked as interruptible.

CPython runs a handler between two instructions, or when a signal interrupts a system call. One that arrives between the
last instruction and the system call interrupts nothing, and its handler would run after the whole wait. So a timer
interrupts such a wait again and again.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

from sidecar.errors import SidecarError
from sidecar.reasons import Reason

# The longest that a request to stop waits for its handler.
_INTERRUPT_SECONDS: Final = 1.0
# Those that a thread beside the main thread must block: there they would not interrupt the main thread's wait.
HANDLED: Final = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGALRM})


class StoppedError(SidecarError):
    """SIGTERM or SIGINT arrived."""

    def __init__(self) -> None:
        super().__init__(Reason.STOPPED, "stopped by a signal before the secrets were published")


class ShutdownSignal:
    """Whether SIGTERM or SIGINT has arrived."""

    def __init__(self) -> None:
        self._requested = False
        self._interruptible = False
        self._period = 0.0

    def listen(self) -> None:
        """Handle SIGTERM and SIGINT from now on."""
        signal.signal(signal.SIGALRM, _interrupt)
        self._period = _INTERRUPT_SECONDS
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
            signal.setitimer(signal.ITIMER_REAL, self._period, self._period)
            yield
        finally:
            self._interruptible = False
            signal.setitimer(signal.ITIMER_REAL, 0.0)

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        self._requested = True
        if self._interruptible:
            self._interruptible = False
            raise StoppedError


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """The system call has been interrupted, which runs the handlers of all signals that have come."""
