"""One deadline over a whole run, and retries within it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Final, TypeVar

from kbs import deadline
from sidecar.errors import SidecarError
from sidecar.log import Events
from sidecar.reasons import Reason
from sidecar.shutdown import ShutdownSignal

_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 4.0

T = TypeVar("T")


class Deadline(deadline.Deadline):
    """A deadline that also ends at a request to stop.

    `once`: no second attempt within it, because the caller schedules the retry.
    """

    def __init__(self, seconds: float, shutdown: ShutdownSignal, *, once: bool = False) -> None:
        super().__init__(seconds)
        self.shutdown = shutdown
        self.once = once

    def check(self, step: str) -> None:
        """Raises SidecarError when the deadline has passed, StoppedError after a request to stop."""
        self.shutdown.check()
        if self.remaining() <= 0:
            raise SidecarError(Reason.DEADLINE, f"not done within {self.seconds:g} s: time ended before {step}")

    def sleep(self, seconds: float) -> None:
        """Wait, at most until the deadline. Raises StoppedError on a request to stop."""
        with self.shutdown.interruptible():
            time.sleep(min(seconds, self.remaining()))


def retry_until(deadline: Deadline, events: Events, work: Callable[[], T]) -> T:
    """The result of `work`, retried while its error is retryable and another attempt fits before the deadline.

    The other side's Retry-After is the shortest wait. Jitter on top keeps pods that started together from retrying
    together.
    """
    pause = _FIRST_PAUSE
    while True:
        try:
            return work()
        except SidecarError as error:
            asked = error.retry_after
            # Pods that were refused together got the same number, so they spread over half of it again.
            wait = pause * (0.5 + jitter()) if asked is None else asked + jitter() * max(pause, asked / 2)
            if deadline.once or not error.retryable or wait >= deadline.remaining():
                raise
            events.warning("retry", reason=error.reason, detail=error.detail, seconds=round(wait, 2))
        deadline.sleep(wait)
        pause = min(2 * pause, _LONGEST_PAUSE)


def jitter() -> float:
    """0 to 1 at random. The module `random` costs 4 ms of every cold start."""
    return int.from_bytes(os.urandom(4), "big") / 2**32
