"""Large bodies take turns: one is handled after another, that of the peer first which used least of the processor.

A handler that decides runs without a pause, and a body of megabytes keeps it busy for a tenth of a second and more. If
all that have arrived ran one after another, the small bodies of others would wait for all of them. So between two large
ones the event loop does what else has arrived; and while several peers get answers, it does so for as long as the large
one took. One peer alone is not held up.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

# A request of a small body that has arrived needs so many rounds of the event loop at most to be answered.
_ROUNDS: Final = 4
_LONGEST_PAUSE_SECONDS: Final = 0.5


class Turns:
    """`await take(peer)` returns when it is the request's turn. `is_contended`: whether other peers get answers too."""

    def __init__(self, is_contended: Callable[[str], bool]) -> None:
        self._is_contended = is_contended
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        # Seconds by peer. Who has used less than `_floor` counts as if it had used that much, so that a newcomer comes
        # first once and not until it has used as much as others did in an hour.
        self._used: dict[str, float] = {}
        self._floor = 0.0
        self._giver: asyncio.Task[None] | None = None

    async def take(self, peer: str) -> None:
        """Wait for the turn. What the caller does until it waits for something else counts as its peer's."""
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(peer, deque()).append(turn)
        if self._giver is None:
            self._giver = asyncio.create_task(self._give())
        await turn

    async def _give(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                peer = min(self._waiting, key=self._used_by)
                turn = self._waiting[peer].popleft()
                if not self._waiting[peer]:
                    del self._waiting[peer]
                if turn.done():  # its request ended while it waited
                    continue
                self._floor = self._used_by(peer)
                started = loop.time()
                turn.set_result(None)
                await asyncio.sleep(0)  # its handler runs
                seconds = loop.time() - started
                self._used = {each: used for each, used in self._used.items() if used > self._floor}
                self._used[peer] = self._floor + seconds
                await self._pause(peer, seconds)
        finally:
            self._giver = None

    def _used_by(self, peer: str) -> float:
        return max(self._used.get(peer, 0.0), self._floor)

    async def _pause(self, peer: str, seconds: float) -> None:
        for _ in range(_ROUNDS):
            await asyncio.sleep(0)
        if self._is_contended(peer):
            await asyncio.sleep(min(seconds, _LONGEST_PAUSE_SECONDS))
