"""How often one guest may log in without a pod token: every container of it has the evidence that is its identity."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Final

from attestation.verifier.reasons import Reason, RefusedError

MOST_LOGINS: Final = 3
WITHIN_SECONDS: Final = 600.0


class LoginBound:
    """At most MOST_LOGINS in any WITHIN_SECONDS, by REPORT_ID (hex), which a guest keeps from launch to end.

    `now`: monotonic seconds. `limit`: guests remembered; only verified evidence makes one.
    """

    def __init__(self, now: Callable[[], float], limit: int = 50_000) -> None:
        self._now = now
        self._limit = limit
        # In the order of the last login.
        self._logins: OrderedDict[str, deque[float]] = OrderedDict()

    def take(self, report_id: str) -> None:
        """Count one login. Raises RefusedError: GUEST_TOO_OFTEN, or OVERLOADED where there are too many guests."""
        now = self._now()
        self._forget(now)
        logins = self._logins.get(report_id)
        if logins is None:
            # Forgetting another guest to make room would be a way around the bound.
            if len(self._logins) >= self._limit:
                raise RefusedError(Reason.OVERLOADED, f"{self._limit} guests without a pod token")
            logins = deque()
        while logins and logins[0] <= now - WITHIN_SECONDS:
            logins.popleft()
        if len(logins) >= MOST_LOGINS:
            raise RefusedError(
                Reason.GUEST_TOO_OFTEN, f"REPORT_ID {report_id[:16]}…: {MOST_LOGINS} logins in {WITHIN_SECONDS:.0f} s"
            )
        logins.append(now)
        self._logins[report_id] = logins
        self._logins.move_to_end(report_id)

    def give_back(self, report_id: str) -> None:
        """Take back the last one: Vault has made no login of it."""
        logins = self._logins.get(report_id)
        if logins:
            logins.pop()
            if not logins:
                del self._logins[report_id]

    def _forget(self, now: float) -> None:
        while self._logins:
            report_id, logins = next(iter(self._logins.items()))
            if logins[-1] > now - WITHIN_SECONDS:
                return
            del self._logins[report_id]
