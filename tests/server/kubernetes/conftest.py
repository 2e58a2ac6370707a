from __future__ import annotations

import json
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from server.kubernetes.client import Client
from server.kubernetes.credentials import ServiceAccount
from tests.webhook.cluster.apiserver import Fault


class Recorder:
    """A server that records requests and gives the `answers` in turn; without one, it gives back what it was sent."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, str, bytes]] = []
        self.answers: deque[Fault] = deque()
        self.url = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.requests.append((request.method, request.raw_path, request.headers.get("Content-Type", ""), body))
        if self.answers:
            return await self.answers.popleft()(request)
        return web.json_response(json.loads(body) if body else {"kind": "Any"})

    def sent(self) -> Any:
        """The JSON body of the last request."""
        return json.loads(self.requests[-1][3])


@pytest.fixture
async def recorder() -> AsyncIterator[Recorder]:
    recorder = Recorder()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", recorder.answer)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    recorder.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield recorder
    await runner.cleanup()


@pytest.fixture
async def client(recorder: Recorder) -> AsyncIterator[Client]:
    async with Client(ServiceAccount(recorder.url)) as client:
        yield client
