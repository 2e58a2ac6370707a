"""Time limits for calls that cannot be told one: the kernel may hold an ioctl or a read for a minute."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from attestation.evidence.errors import Code, EvidenceError

T = TypeVar("T")


class Deadline:
    """A point in time, `seconds` from now on the monotonic clock."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self.seconds = seconds

    def remaining(self) -> float:
        """Seconds left, 0 when it has passed."""
        return max(0.0, self._end - time.monotonic())

    def missed(self, source: str) -> EvidenceError:
        """What to raise when it has passed."""
        return EvidenceError(source, Code.DEADLINE, f"no answer within {self.seconds:g} s")


def within(source: str, timeout: float, work: Callable[[], T]) -> T:
    """The result of `work`, or EvidenceError(DEADLINE) after `timeout` seconds.

    `work` runs in a thread of its own, because sev-guest sleeps in the kernel while the hypervisor throttles it
    (drivers/virt/coco/sev-guest/sev-guest.c, SNP_REQ_MAX_RETRY_DURATION: 60 s). After a missed deadline the thread is
    left to end, and to clean up, when the kernel lets go of it.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # it belongs to the caller, whatever it is
            errors.append(error)

    deadline = Deadline(timeout)
    thread = threading.Thread(target=run, name=f"evidence {source}", daemon=True)
    thread.start()
    thread.join(deadline.remaining())
    if errors:
        raise errors[0]
    if not results:
        raise deadline.missed(source)
    return results[0]
