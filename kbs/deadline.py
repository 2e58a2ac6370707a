"""One point in time that bounds everything: the one deadline of the guest's side. Imports next to nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class DeadlineExceededError(TimeoutError):
    """The deadline has passed."""


class Deadline:
    """A point in time, `seconds` from now on the monotonic clock."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    def remaining(self) -> float:
        """Seconds left, 0 when it has passed."""
        return max(0.0, self._end - time.monotonic())

    def timeout(self) -> float:
        """Seconds left, always more than 0, as a socket's timeout takes them. Raises DeadlineExceededError."""
        remaining = self.remaining()
        if remaining <= 0:
            raise DeadlineExceededError
        return remaining


def call_within(deadline: Deadline, name: str, work: Callable[[], T]) -> T:
    """The result of `work`, a call that takes no timeout of its own. Raises DeadlineExceededError, or what `work` did.

    `work` runs in a thread called `name`. After a missed deadline the thread is left to end by itself.
    """
    import threading  # here, because most runs need no thread

    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # it belongs to the caller, whatever it is
            errors.append(error)

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    thread.join(deadline.remaining())
    if errors:
        raise errors[0]
    if not results:
        raise DeadlineExceededError
    return results[0]
