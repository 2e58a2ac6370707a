"""How often one may ask: buckets that fill at a steady rate, one a pod, remembered for so many pods."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Callable, Hashable


class Pace:
    """`burst` at once and then one each `seconds`, for each key. `now`: monotonic seconds. The key that has been quiet
    longest is forgotten beyond `limit`: it has a full bucket by then, or somebody has `limit` pods.
    """

    def __init__(self, burst: int, seconds: float, now: Callable[[], float], limit: int = 50_000) -> None:
        self._horizon = burst * seconds
        self._seconds = seconds
        self._now = now
        self._limit = limit
        # Key -> when its bucket would be full again (the generic cell rate algorithm).
        self._full_at: OrderedDict[Hashable, float] = OrderedDict()

    def take(self, key: Hashable) -> bool:
        """One more for this key; False when that is too many, and then nothing is counted."""
        now = self._now()
        full_at = max(self._full_at.pop(key, now), now)
        allowed = full_at + self._seconds - now <= self._horizon
        self._full_at[key] = full_at + self._seconds if allowed else full_at
        while len(self._full_at) > self._limit:
            self._full_at.popitem(last=False)
        return allowed


def network(peer: str) -> str:
    """What counts as one source: an IPv4 address, or the /64 that a single IPv6 host may choose from."""
    if ":" not in peer:
        return peer
    try:
        address = ipaddress.IPv6Address(peer.partition("%")[0])
    except ValueError:
        return peer
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Network((address, 64), strict=False))
