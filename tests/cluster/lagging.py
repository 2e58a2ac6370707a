"""A way to the API server by which one replica sees one ConfigMap as it was, for as long as a test wants.

A reverse proxy with a certificate of the cluster's own authority. Everything else passes: other watches, writes,
leases. So the replica is ready and healthy, and does not know what the others know.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any

import aiohttp
from aiohttp import web

from tests.support.ports import free_port

_HELD = "/configmaps"
_DROPPED = {"host", "transfer-encoding", "content-length", "connection", "content-encoding", "accept-encoding"}


class LaggingApi:
    """Within its block, `url` is the API server at `target`; between `hold` and `release` no ConfigMap is news."""

    def __init__(self, target: str, ca: Path, pair: tuple[Path, Path]) -> None:
        self.url = f"https://127.0.0.1:{free_port()}"
        self._target = target
        self._trust = ssl.create_default_context(cafile=str(ca))
        self._own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._own.load_cert_chain(*pair)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._flowing = asyncio.Event()

    def __enter__(self) -> LaggingApi:
        self._thread.start()
        self._do(self._start())
        return self

    def __exit__(
        self, error: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
        self._do(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(120)
        self._loop.close()

    def hold(self) -> None:
        """From now on, what is read of ConfigMaps waits."""
        self._do(self._set(False))

    def release(self) -> None:
        """Let it through."""
        self._do(self._set(True))

    def _do(self, action: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(action, self._loop).result(120)

    async def _set(self, flowing: bool) -> None:
        self._flowing.set() if flowing else self._flowing.clear()

    async def _start(self) -> None:
        self._flowing.set()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=self._trust),
            timeout=aiohttp.ClientTimeout(total=None, sock_read=None),
            auto_decompress=False,
        )
        application = web.Application(client_max_size=16 << 20)
        application.router.add_route("*", "/{path:.*}", self._relay)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        port = int(self.url.rpartition(":")[2])
        await web.TCPSite(self._runner, "127.0.0.1", port, ssl_context=self._own).start()

    async def _stop(self) -> None:
        await self._runner.cleanup()
        await self._session.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _relay(self, request: web.Request) -> web.StreamResponse:
        holds = request.method == "GET" and _HELD in request.path
        if holds:
            await self._flowing.wait()
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _DROPPED}
        async with self._session.request(
            request.method, f"{self._target}{request.raw_path}", headers=headers, data=await request.read()
        ) as answer:
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in _DROPPED}
            response = web.StreamResponse(status=answer.status, headers=kept)
            await response.prepare(request)
            with contextlib.suppress(ConnectionError, aiohttp.ClientConnectionError):  # either end has gone
                async for chunk in answer.content.iter_any():
                    if holds:
                        await self._flowing.wait()
                    await response.write(chunk)
                await response.write_eof()
            return response
