"""A due time for each task, and back-off for one that failed."""

from __future__ import annotations

import time
from collections.abc import Iterable
from enum import StrEnum
from typing import Final

from sidecar.deadline import jitter
from sidecar.errors import SidecarError
from sidecar.reasons import Exit
from sidecar.shutdown import ShutdownSignal

FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 60.0
# After a refusal: an operator has to change something first.
LONGEST_PAUSE_REFUSED: Final = 300.0


class Task(StrEnum):
    """What a sidecar does after its first publication."""

    TOKEN = "token"
    LEASES = "leases"
    ATTESTATION = "attestation"
    SECRETS = "secrets"
    CLEANUP = "cleanup"


class Schedule:
    """Due times on the monotonic clock."""

    def __init__(self, tasks: Iterable[Task]) -> None:
        self._due: dict[Task, float] = dict.fromkeys(tasks, float("inf"))
        self._failures: dict[Task, int] = dict.fromkeys(self._due, 0)

    def set(self, task: Task, seconds: float | None) -> None:
        """Make a task due in so many seconds; None: never, until it is set again."""
        self._failures[task] = 0
        self._due[task] = float("inf") if seconds is None else time.monotonic() + seconds

    def set_unless_backing_off(self, task: Task, seconds: float | None) -> None:
        """As `set`, unless the task waits because it failed."""
        if not self._failures[task]:
            self.set(task, seconds)

    def run_now(self, task: Task) -> None:
        """Make a task due now, unless it waits because it failed."""
        if not self._failures[task]:
            self._due[task] = min(self._due[task], time.monotonic())

    def retry(self, task: Task, error: SidecarError) -> None:
        """Make a failed task due after a pause that doubles, with jitter; the other side's Retry-After is the least."""
        is_outage = error.retryable or error.exit_code is Exit.DEADLINE
        longest = LONGEST_PAUSE if is_outage else LONGEST_PAUSE_REFUSED
        pause = min(longest, FIRST_PAUSE * 2.0 ** min(self._failures[task], 16)) * (0.5 + jitter() / 2)
        self._failures[task] += 1
        self._due[task] = time.monotonic() + max(pause, min(error.retry_after or 0.0, LONGEST_PAUSE_REFUSED))

    def wait(self, shutdown: ShutdownSignal, longest: float) -> Task | None:
        """Wait for the first task that is due; None after `longest` seconds. Raises StoppedError."""
        task = min(self._due, key=self._due.__getitem__)
        seconds = self._due[task] - time.monotonic()
        with shutdown.interruptible():
            time.sleep(min(max(0.0, seconds), longest))
        return task if seconds <= longest else None
