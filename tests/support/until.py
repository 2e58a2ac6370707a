"""Waiting for a condition that gives no event to await, such as the state of another process.

The time limits only end a test that hangs. They are wide, because a busy machine takes long for anything.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

SECONDS: Final = 300.0
_PAUSE_SECONDS: Final = 0.05


def until(condition: Callable[[], object], seconds: float = SECONDS) -> None:
    """Return when the condition holds. Raises AssertionError when that takes longer than `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"it did not happen within {seconds:g} s"
        time.sleep(_PAUSE_SECONDS)


async def until_async(condition: Callable[[], object], seconds: float = SECONDS) -> None:
    """As `until`, for what a task on the running event loop does."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"it did not happen within {seconds:g} s"
        await asyncio.sleep(_PAUSE_SECONDS)


async def until_awaited(condition: Callable[[], Awaitable[object]], seconds: float = SECONDS) -> None:
    """As `until_async`, for a condition that is itself asked for, as by a request or a handshake that may hang."""
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110  (no event tells of another process's state)
            await asyncio.sleep(_PAUSE_SECONDS)
