"""The load of a server: the body bytes and the running handlers of each peer, and whether one more fits.

Shares bind only under contention. While one peer makes all requests (an API server behind konnectivity, all guests
behind one NAT), it may use nearly all of a pool. A second peer gets room all the same: a part of each pool is kept for
peers that are within their share, and a full pool takes back the bytes of unfinished bodies from the peer that holds
most of them.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Final

from server.limits import Latch, Limits

_ACTIVE_SECONDS: Final = 10.0  # for so long after its last answer a peer counts as one that shares
_ACTIVE_PEERS: Final = 64  # as many as are remembered
# A body that took so long may be cut off in favour of a new one of the same peer: an honest one arrives at once.
_STALE_SECONDS: Final = 1.0
_WINDOW_SECONDS: Final = 5
# The refusals within the window that make a server unready: so many, and this part of all requests.
_REFUSED_COUNT: Final = 5
_REFUSED_HIGH: Final = 0.1
_REFUSED_LOW: Final = 0.02


class Pool:
    """An amount that peers share.

    `reserve` of it is for preferred requests alone, and `spare` of it for peers within their share, which is the
    capacity divided by one more than the number of peers: there is always room for the next peer.
    """

    __slots__ = ("capacity", "of_peer", "reserve", "spare", "used")

    def __init__(self, capacity: int, reserve: float, spare: float) -> None:
        self.capacity = capacity
        self.reserve = int(capacity * reserve)
        self.spare = int(capacity * spare)
        self.used = 0
        self.of_peer: dict[str, int] = {}

    def fits(self, peer: str, amount: int, *, preferred: bool) -> bool:
        """Whether the peer may take `amount` more now."""
        needed = self.used + amount
        if not preferred:
            needed += self.reserve
        # Most of the time there is room for any peer, and no share has to be computed.
        return needed + self.spare <= self.capacity or (needed <= self.capacity and self.is_within_share(peer, amount))

    def is_within_share(self, peer: str, amount: int, peers: int = 0) -> bool:
        """Whether the peer, with `amount` more, has no more than its share; `peers`: all, if more than use it."""
        peers = max(peers, len(self.of_peer) + (peer not in self.of_peer))
        return self.of_peer.get(peer, 0) + amount <= self.capacity // (peers + 1)

    def take(self, peer: str, amount: int) -> None:
        self.used += amount
        self.of_peer[peer] = self.of_peer.get(peer, 0) + amount

    def give(self, peer: str, amount: int) -> None:
        self.used -= amount
        left = self.of_peer.get(peer, 0) - amount
        if left > 0:
            self.of_peer[peer] = left
        else:
            self.of_peer.pop(peer, None)

    def fair(self, peers: int) -> int:
        """The amount in use, where of each of `peers` peers no more than its share counts once there are several."""
        if peers <= 1:
            return self.used
        share = self.capacity // (peers + 1)
        return sum(min(amount, share) for amount in self.of_peer.values())


class HeldBody:
    """The bytes that the server holds of one body. `evict` ends the reading of an unfinished one."""

    __slots__ = ("evict", "peer", "preferred", "settled", "since", "size")

    def __init__(self, peer: str, since: float, evict: Callable[[], None], *, preferred: bool) -> None:
        self.peer = peer
        self.since = since
        self.evict = evict
        self.preferred = preferred
        self.settled = False
        self.size = 0


class Load:
    """The handlers running and the body bytes held now, and the refusals of the last seconds. `now`: monotonic seconds.

    A *preferred* request may use the reserves: it has a small body, or has shown in its headers that it deserves them.
    """

    def __init__(self, limits: Limits, now: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._now = now
        self._running = Pool(limits.concurrency, limits.reserve, limits.spare)
        self._bytes = Pool(limits.bodies_bytes, limits.reserve, limits.spare)
        # Bytes of complete bodies, which no other peer can have back before their handlers end.
        self._settled = Pool(limits.bodies_bytes, 0, 0)
        self._unfinished: dict[HeldBody, None] = {}  # the oldest first
        self._active: OrderedDict[str, float] = OrderedDict()
        self._refusals = _Refusals()
        self._running_latch = _latch(limits, limits.concurrency)
        self._bytes_latch = _latch(limits, limits.bodies_bytes)

    @property
    def running(self) -> int:
        return self._running.used

    @property
    def bytes_held(self) -> int:
        return self._bytes.used

    def has_room(self, peer: str, *, preferred: bool) -> bool:
        """Whether one more handler may run for this peer."""
        return self._running.fits(peer, 1, preferred=preferred)

    def enter(self, peer: str) -> None:
        """Count one more running handler."""
        self._running.take(peer, 1)
        self._update()

    def leave(self, peer: str) -> None:
        """Count one handler less, and its request as answered."""
        self._running.give(peer, 1)
        now = self._now()
        self._active[peer] = now
        self._active.move_to_end(peer)
        if len(self._active) > _ACTIVE_PEERS:
            self._active.popitem(last=False)
        self._refusals.answered(now)
        self._update()

    def refused(self, peer: str) -> None:
        """Note a refusal for want of room. It counts for readiness if the peer was within its share.

        The refusals of a peer that takes more are what the bounds are for. If that peer is all load, the handlers that
        run and the complete bodies show it; unfinished bodies do not, because a newcomer gets their room.
        """
        now = self._now()
        peers = self._peers(now, peer)
        if self._running.is_within_share(peer, 1, peers) and self._bytes.is_within_share(peer, 1, peers):
            self._refusals.refused(now)

    def begin(self, peer: str, evict: Callable[[], None], *, preferred: bool) -> HeldBody:
        """A body whose bytes will be held. `evict` must make its reader end; its bytes are given back already then."""
        return HeldBody(peer, self._now(), evict, preferred=preferred)

    def hold(self, body: HeldBody, size: int) -> bool:
        """Count `size` more bytes of this body. Returns False, and counts nothing, when there is no room for them."""
        while not self._bytes.fits(body.peer, size, preferred=body.preferred):
            if (other := self._evictable(body, size)) is None:
                return False
            self.release(other)
            other.evict()
        self._bytes.take(body.peer, size)
        if not body.size:
            self._unfinished[body] = None
        body.size += size
        return True

    def settle(self, body: HeldBody) -> None:
        """The body is complete: it can no longer be evicted."""
        if body in self._unfinished:
            del self._unfinished[body]
            body.settled = True
            self._settled.take(body.peer, body.size)
            self._update()

    def release(self, body: HeldBody) -> None:
        """Give the body's bytes back."""
        self._unfinished.pop(body, None)
        self._bytes.give(body.peer, body.size)
        if body.settled:
            self._settled.give(body.peer, body.size)
            body.settled = False
            self._update()
        body.size = 0

    def problem(self) -> str | None:
        """Why the server should get no new requests for now; None while it should. For the readiness gate."""
        self._update()
        if self._running_latch.closed:
            return f"too many requests at once: {self.running} of {self._limits.concurrency} handlers run"
        if self._bytes_latch.closed:
            return f"too many bytes at once: request bodies hold {self.bytes_held} of {self._limits.bodies_bytes} bytes"
        return self._refusals.problem(self._now())

    def is_contended(self, peer: str) -> bool:
        """Whether peers other than this one have handlers running, or had answers in the last seconds."""
        return self._peers(self._now(), peer) > 1

    def _evictable(self, body: HeldBody, size: int) -> HeldBody | None:
        """The body that makes room: the oldest one of the peer that holds most, or a stale one of the same peer."""
        held = self._bytes.of_peer
        wanted = held.get(body.peer, 0) + size
        unfinished: dict[str, HeldBody] = {}
        for other in self._unfinished:
            unfinished.setdefault(other.peer, other)
        greediest = max(unfinished, key=lambda peer: held.get(peer, 0), default=body.peer)
        if greediest != body.peer and held.get(greediest, 0) > wanted:
            return unfinished[greediest]
        own = unfinished.get(body.peer)
        if own is None or own is body or self._now() - own.since < _STALE_SECONDS:
            return None
        return own

    def _peers(self, now: float, *more: str) -> int:
        """The number of peers that have handlers running or had an answer in the last seconds, with `more`."""
        while self._active and next(iter(self._active.values())) < now - _ACTIVE_SECONDS:
            self._active.popitem(last=False)
        return len({*self._active, *self._running.of_peer, *more})

    def _update(self) -> None:
        # Most of the time neither bound is near, and nothing needs to be counted.
        running, bodies = self._running_latch, self._bytes_latch
        if running.closed or self._running.used >= running.high:
            running.update(self._running.fair(self._peers(self._now())))
        if bodies.closed or self._settled.used >= bodies.high:
            bodies.update(self._settled.fair(self._peers(self._now())))


class _Refusals:
    """Answers and refusals within the last seconds, by second."""

    __slots__ = ("_latch", "_seconds")

    def __init__(self) -> None:
        self._latch = Latch(_REFUSED_HIGH, _REFUSED_LOW)
        self._seconds: deque[list[int]] = deque(maxlen=_WINDOW_SECONDS)  # [second, answered, refused]

    def answered(self, now: float) -> None:
        self._at(now)[1] += 1

    def refused(self, now: float) -> None:
        self._at(now)[2] += 1

    def problem(self, now: float) -> str | None:
        first = int(now) - _WINDOW_SECONDS
        recent = [each for each in self._seconds if each[0] > first]
        answered, refused = sum(each[1] for each in recent), sum(each[2] for each in recent)
        part = refused / (answered + refused) if refused else 0.0
        self._latch.update(part if self._latch.closed or refused >= _REFUSED_COUNT else 0.0)
        if not self._latch.closed:
            return None
        return f"{refused} of {answered + refused} requests refused for want of room in {_WINDOW_SECONDS} s"

    def _at(self, now: float) -> list[int]:
        second = int(now)
        if not self._seconds or self._seconds[-1][0] != second:
            self._seconds.append([second, 0, 0])
        return self._seconds[-1]


def _latch(limits: Limits, capacity: int) -> Latch:
    high = max(1, int(capacity * limits.high_water))
    return Latch(high, min(high - 1, int(capacity * limits.low_water)))
