"""The connections of a listener: how many, whose, and how long one may take to say something.

aiohttp bounds a header's size but not the time it takes, and lets an idle connection that sent nothing live as long as
a used one. Both are what a slow-loris client lives from.
"""

import asyncio
from collections import Counter as Tally
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler
from prometheus_client import Counter

from server import logs
from server.limits import Limits

SWEEP_SECONDS = 0.25
_EVICT_AFTER_SECONDS = 5.0


class Connection(RequestHandler):
    """One HTTP/1.1 connection: `busy` while a handler has a request, `reading_since` while a header is incomplete."""

    __slots__ = ("_pool", "_time", "busy", "idle_since", "peer", "reading_since")

    def __init__(self, pool: "Connections", server: web.Server, loop: asyncio.AbstractEventLoop, **bounds: Any) -> None:
        super().__init__(server, loop=loop, **bounds)
        self._pool = pool
        self._time = loop.time
        self.busy = False
        self.idle_since = loop.time()
        self.reading_since = 0.0
        self.peer = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.peer = str((transport.get_extra_info("peername") or ("",))[0])
        self._pool.add(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._pool.discard(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        # A complete header starts a handler in the loop's next steps, and begin() clears this.
        if not self.busy and not self.reading_since:
            self.reading_since = self._time()
        super().data_received(data)

    def begin(self) -> None:
        self.busy = True
        self.reading_since = 0.0

    def end(self) -> None:
        self.busy = False
        self.idle_since = self._time()

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        # aiohttp's own would log the exception and repeat the bad line to the client.
        self._pool.cut.labels("bad_request").inc()
        logs.warning("bad_request", status=status, error=type(exc).__name__)
        response = web.Response(status=status, body=b"bad request\n", content_type="text/plain")
        response.force_close()
        return response

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def hang_up(self) -> None:
        if self.transport is not None:
            self.transport.close()


class Connections:
    """All connections of one listener. `cut` counts, by reason, those the server ended."""

    def __init__(self, limits: Limits, cut: Counter) -> None:
        self._limits = limits
        self._open: set[Connection] = set()
        self._empty = asyncio.Event()
        self._empty.set()
        self.cut = cut
        self.draining = False

    def __len__(self) -> int:
        return len(self._open)

    async def listen(
        self, handler: Any, host: str, port: int, tls: Any = None, *, lingering: float = 2.0
    ) -> asyncio.AbstractServer:
        """Accept connections on `host`:`port` (0 for any), with `tls` (an SSLContext) or plain."""
        loop = asyncio.get_running_loop()
        limits = self._limits
        server = web.Server(handler)
        handshake = {"ssl": tls, "ssl_handshake_timeout": limits.header_seconds} if tls else {}

        def connect() -> Connection:
            return Connection(
                self,
                server,
                loop,
                access_log=None,
                max_line_size=limits.header_line_bytes,
                max_field_size=limits.header_line_bytes,
                max_headers=limits.header_count,
                # A refused body is read and dropped this long, so that the client reads the refusal, not a reset.
                lingering_time=lingering,
                read_bufsize=64 << 10,
                # A compressed body would be bounded only after it was expanded.
                auto_decompress=False,
            )

        return await loop.create_server(connect, host, port, backlog=1024, **handshake)

    def add(self, connection: Connection) -> None:
        if len(self._open) >= self._limits.connections:
            self.cut.labels("too_many").inc()
            self._yielding(connection).abort()
        self._open.add(connection)
        self._empty.clear()

    def _yielding(self, connection: Connection) -> Connection:
        """Who makes room for a new connection, or the new one itself."""
        idle = sorted((each for each in self._open if not each.busy), key=lambda each: each.idle_since)
        # A caller that holds more than the new one's loses one, however often it uses them: an API server must get in.
        held = Tally(each.peer for each in self._open)
        most = max(held.values())
        if most > held[connection.peer] + 1 and (greedy := [each for each in idle if held[each.peer] == most]):
            return greedy[0]
        # Somebody who only holds connections loses them to somebody who wants to use one.
        if idle and connection.idle_since - idle[0].idle_since >= _EVICT_AFTER_SECONDS:
            return idle[0]
        return connection

    def discard(self, connection: Connection) -> None:
        self._open.discard(connection)
        if not self._open:
            self._empty.set()

    async def sweep(self) -> None:
        """Cut what exceeds its time, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            now = loop.time()
            idle = self._limits.drain_idle_seconds if self.draining else self._limits.keep_alive_seconds
            for connection in list(self._open):
                if connection.busy:
                    continue
                if connection.reading_since and now - connection.reading_since > self._limits.header_seconds:
                    self.cut.labels("header_timeout").inc()
                    connection.abort()
                elif not connection.reading_since and now - connection.idle_since > idle:
                    connection.hang_up()

    async def drained(self, seconds: float) -> bool:
        """Wait until no connection is open; False when that takes longer than `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                await self._empty.wait()
        except TimeoutError:
            return False
        return True

    def abort(self) -> None:
        """End all that are left."""
        for connection in list(self._open):
            self.cut.labels("grace").inc()
            connection.abort()
