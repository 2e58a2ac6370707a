"""An answer's body as aiohttp reads it, up to a bound: a peer decides how much it sends."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import aiohttp


async def whole_body(response: aiohttp.ClientResponse, limit: int) -> bytes | None:
    """The whole body; None where it has more than `limit` bytes, of which no more than a buffer is read.

    Raises aiohttp's errors and TimeoutError.
    """
    parts, size = [], 0
    async for part in response.content.iter_any():
        size += len(part)
        if size > limit:
            return None
        parts.append(part)
    return b"".join(parts)
