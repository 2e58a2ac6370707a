"""Clients that send one request after the other, each until an answer closes its connection."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from tests.support.until import SECONDS

_LOADED = 100  # answers


class DrainedLoad:
    """Starts at once. `connect` makes a client whose `request` raises where the server loses a request."""

    def __init__(self, connect: Callable[[], Awaitable[Any]], body: bytes, clients: int) -> None:
        self._connect = connect
        self._body = body
        self._answered = 0
        self._enough = asyncio.Event()
        self._clients = asyncio.gather(*(self._request() for _ in range(clients)))

    async def _request(self) -> None:
        client = await self._connect()
        while True:
            answer = await client.request("POST", "/echo", self._body)
            assert (answer.status, answer.body) == (200, self._body)
            self._answered += 1
            if self._answered == _LOADED:
                self._enough.set()
            if answer.headers.get("connection") == "close":
                return

    async def loaded(self) -> None:
        """Wait until many requests were answered."""
        await asyncio.wait_for(self._enough.wait(), SECONDS)

    async def drained(self) -> None:
        """Wait until an answer has closed each client's connection. Raises for a request that was lost."""
        await asyncio.wait_for(self._clients, SECONDS)
