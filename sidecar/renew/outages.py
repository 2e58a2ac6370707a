"""What is wrong at the moment: told when it begins and when it is over, not at each attempt in between."""

from __future__ import annotations

import time

from sidecar.errors import SidecarError
from sidecar.log import Events
from sidecar.reasons import Exit


class Outages:
    """Subject → what is wrong with it. Bounded: subjects are parties, tasks of ours and secrets of the plan."""

    def __init__(self, events: Events) -> None:
        self._events = events
        self._now: dict[str, tuple[Exit, str, float]] = {}

    def begin(self, subject: str, error: SidecarError) -> None:
        """One line when this is new."""
        exit_code, _, since = self._now.get(subject, (None, "", time.monotonic()))
        self._now[subject] = error.exit_code, error.reason, since
        if exit_code is not error.exit_code:
            self._events.warning(
                "trouble",
                subject=subject,
                reason=error.reason,
                detail=error.detail,
                correlation_id=error.correlation_id,
            )

    def end(self, *subjects: str) -> None:
        """One line for each that was."""
        for subject in subjects:
            if subject in self._now:
                _, reason, since = self._now.pop(subject)
                self._events.info(
                    "recovered", subject=subject, reason=reason, seconds=round(time.monotonic() - since, 1)
                )

    def reasons(self) -> list[str]:
        """Stable reason codes, without subjects: what anybody in the cluster may read."""
        return sorted({reason for _, reason, _ in self._now.values()})
