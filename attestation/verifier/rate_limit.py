"""A rate limiter per key (the generic cell rate algorithm), bounded in the number of keys."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable

_SECOND = 1_000_000_000


class RateLimiter:
    """Allows `burst` at once and then one every `seconds`, per key. `now`: monotonic seconds.

    Beyond `limit` keys the one that was used longest ago is forgotten: its bucket is full by then, unless one client
    controls `limit` keys.
    """

    def __init__(self, burst: int, seconds: float, now: Callable[[], float], limit: int = 50_000) -> None:
        # Whole nanoseconds: sums of seconds round, and a full bucket would now and then refuse
        # the call that fits exactly.
        self._interval = round(seconds * _SECOND)
        self._horizon = burst * self._interval
        self._now = now
        self._limit = limit
        # Key -> the time at which its bucket is full again.
        self._full_at: OrderedDict[Hashable, int] = OrderedDict()

    def take(self, key: Hashable, amount: int = 1) -> bool:
        """Count `amount` for this key and return True; return False and count nothing when that is too many.

        An amount above the burst counts as the burst: it needs a full bucket.
        """
        now = round(self._now() * _SECOND)
        full_at = max(self._full_at.pop(key, now), now)
        cost = min(amount * self._interval, self._horizon)
        allowed = full_at + cost - now <= self._horizon
        self._full_at[key] = full_at + cost if allowed else full_at
        while len(self._full_at) > self._limit:
            self._full_at.popitem(last=False)
        return allowed
