"""What is wrong at the moment: logged when it begins and when it ends, not at each attempt in between."""

from __future__ import annotations

import time
from typing import Final

from sidecar.errors import SidecarError
from sidecar.log import Events
from sidecar.reasons import Exit, Reason

VAULT: Final = "vault"
VERIFIER: Final = "verifier"
# An unreachable party is one outage, whichever request failed.
_PARTIES: Final = {Exit.VAULT_UNREACHABLE: VAULT, Exit.DEADLINE: VAULT, Exit.VERIFIER_UNREACHABLE: VERIFIER}


class Outages:
    """Subject → what is wrong with it. Bounded: subjects are parties, tasks and secrets of the plan."""

    def __init__(self, events: Events) -> None:
        self._events = events
        self._now: dict[str, tuple[Exit, Reason, float]] = {}

    def begin(self, subject: str, error: SidecarError) -> None:
        """Log one line, unless the subject already has an outage of this kind."""
        exit_code, _, since = self._now.get(subject, (None, error.reason, time.monotonic()))
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
        """Log one line for each of these that had an outage."""
        for subject in subjects:
            if subject in self._now:
                _, reason, since = self._now.pop(subject)
                self._events.info(
                    "recovered", subject=subject, reason=reason, seconds=round(time.monotonic() - since, 1)
                )

    def reasons(self) -> list[str]:
        """Stable reason codes, without subjects: what everyone in the cluster may read."""
        return sorted({reason.value for _, reason, _ in self._now.values()})


def party_of(error: SidecarError) -> str | None:
    """The party that an error says is unreachable; None for any other error."""
    return _PARTIES.get(error.exit_code)
