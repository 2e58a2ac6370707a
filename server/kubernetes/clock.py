"""The API server's time, which counts where the API server checks what we made, such as our certificates.

Each of its answers carries its time (RFC 9110, section 6.6.1), to the second. Between two answers our monotonic clock
continues from there, so a jump of our own wall clock changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime


class ServerClock:
    """The API server's time; our own until the first answer."""

    def __init__(
        self,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._monotonic = monotonic
        self._wall = wall
        self._offset: float | None = None

    def observe(self, date: str | None) -> None:
        """Take the `Date` header of an answer that has just arrived; an unreadable one changes nothing."""
        try:
            seconds = parsedate_to_datetime(date or "").timestamp()
        except (ValueError, OverflowError):
            return
        self._offset = seconds - self._monotonic()

    def now(self) -> datetime:
        """Now, in UTC."""
        if self._offset is None:
            return datetime.fromtimestamp(self._wall(), UTC)
        return datetime.fromtimestamp(0, UTC) + timedelta(seconds=self._offset + self._monotonic())

    @property
    def skew_seconds(self) -> float:
        """How far our wall clock is ahead of the API server's."""
        return self._wall() - self.now().timestamp()
