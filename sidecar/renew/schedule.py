"""What is to be done when: a due time for each duty, and back-off for one that failed."""

from __future__ import annotations

import time
from collections.abc import Iterable
from enum import StrEnum
from typing import Final

from sidecar.deadline import fraction
from sidecar.errors import Exit, RefusalError
from sidecar.shutdown import Stop

FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 60.0
# Somebody said no: people have to change something first.
LONGEST_PAUSE_REFUSED: Final = 300.0


class Duty(StrEnum):
    """What a sidecar does."""

    TOKEN = "token"
    LEASES = "leases"
    ATTESTATION = "attestation"
    SECRETS = "secrets"
    CLEANUP = "cleanup"


class Agenda:
    """Due times on the monotonic clock."""

    def __init__(self, duties: Iterable[Duty]) -> None:
        self._due: dict[Duty, float] = dict.fromkeys(duties, float("inf"))
        self._failures: dict[Duty, int] = dict.fromkeys(self._due, 0)

    def set(self, duty: Duty, seconds: float | None) -> None:
        """Due in so many seconds; None: not until somebody sets it."""
        self._failures[duty] = 0
        self._due[duty] = float("inf") if seconds is None else time.monotonic() + seconds

    def expect(self, duty: Duty, seconds: float | None) -> None:
        """Due in so many seconds, unless it waits because it failed."""
        if not self._failures[duty]:
            self.set(duty, seconds)

    def hasten(self, duty: Duty) -> None:
        """Due now, unless it waits because it failed."""
        if not self._failures[duty]:
            self._due[duty] = min(self._due[duty], time.monotonic())

    def retry(self, duty: Duty, refusal: RefusalError) -> None:
        """Due after a pause that doubles, with jitter; what the other side asks for is the least."""
        is_outage = refusal.again or refusal.exit_code is Exit.DEADLINE
        longest = LONGEST_PAUSE if is_outage else LONGEST_PAUSE_REFUSED
        pause = min(longest, FIRST_PAUSE * 2.0 ** min(self._failures[duty], 16)) * (0.5 + fraction() / 2)
        self._failures[duty] += 1
        self._due[duty] = time.monotonic() + max(pause, min(refusal.retry_after or 0.0, LONGEST_PAUSE_REFUSED))

    def wait(self, stop: Stop, longest: float) -> Duty | None:
        """The first duty that is due; None after `longest` seconds. Raises StoppedError."""
        duty = min(self._due, key=self._due.__getitem__)
        seconds = self._due[duty] - time.monotonic()
        with stop.interruptible():
            time.sleep(min(max(0.0, seconds), longest))
        return duty if seconds <= longest else None
