"""Gives memory back that the C library's allocator keeps.

Requests of all sizes leave holes between what lives longer. The allocator uses some of them again and touches new pages
all the same, so a server that holds nothing more still grows by a few MB an hour, for hours.
"""

from __future__ import annotations

import asyncio
import ctypes
from collections.abc import Callable

SECONDS = 30.0


async def give_back() -> None:
    """Return the pages of all holes to the system, now and then, until cancelled. It takes less than a millisecond."""
    trim = _trim()
    while trim is not None:
        await asyncio.sleep(SECONDS)
        trim(0)


def _trim() -> Callable[[int], int] | None:
    """`malloc_trim(3)`; None where the C library has none, such as musl."""
    try:
        found: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return None
    return found
