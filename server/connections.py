"""The connections of a listener: their number, their peers, and their time limits.

aiohttp bounds the size of a header but not the time that it takes, and it never closes a connection that sent nothing.
A slow-loris client exploits both.
"""

import asyncio
import errno
import select
import socket
from collections import Counter as Tally
from collections.abc import Callable
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler
from prometheus_client import Counter

from server import logs
from server.limits import Limits
from server.peers import peer_address, peer_network
from server.tls import shown_spki

_SWEEP_SECONDS = 0.25
_EVICT_AFTER_SECONDS = 5.0
# The time that a client has to take what is left and to close its side; TLS would wait much longer for its close.
_HANG_UP_SECONDS = 2.0
_TAKEN = (errno.EADDRINUSE, errno.EACCES)


class Connection(RequestHandler):
    """One HTTP/1.1 connection: `busy` while a handler has a request, `reading_since` while a header is incomplete.

    `address` is the other end's, without the port; `peer` is the network that shares are counted for. `spki`: see
    `server.tls.shown_spki`.
    """

    __slots__ = ("_pool", "_time", "address", "busy", "closing_since", "idle_since", "peer", "reading_since", "spki")

    def __init__(self, pool: "Connections", server: web.Server, loop: asyncio.AbstractEventLoop, **bounds: Any) -> None:
        super().__init__(server, loop=loop, **bounds)
        self._pool = pool
        self._time = loop.time
        self.busy = False
        self.idle_since = loop.time()
        self.reading_since = 0.0
        self.closing_since = 0.0
        self.address = ""
        self.peer = ""
        self.spki = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.address = peer_address(str((transport.get_extra_info("peername") or ("",))[0]))
        self.peer = peer_network(self.address)
        self.spki = shown_spki(transport.get_extra_info("ssl_object"))
        self._pool.add(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._pool.discard(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        # After a complete header the loop starts a handler, which calls begin() and so clears this.
        if not self.busy and not self.reading_since:
            self.reading_since = self._time()
        super().data_received(data)

    def resume_reading(self, resume_parser: bool = True) -> None:
        # aiohttp calls this with each chunk of a body that is read, and then parses nothing once more.
        if self._reading_paused:
            super().resume_reading(resume_parser)

    def begin(self) -> None:
        self.busy = True
        self.reading_since = 0.0

    def end(self) -> None:
        self.busy = False
        self.idle_since = self._time()

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        # aiohttp's own handler would log the exception and send the bad line back to the client.
        self._pool.cut.labels("bad_request").inc()
        logs.warning("bad_request", status=status, error=type(exc).__name__)
        response = web.Response(status=status, body=b"bad request\n", content_type="text/plain")
        response.force_close()
        return response

    def is_connected(self) -> bool:
        """Whether the client has not closed the connection, as far as the event loop has read."""
        return self.transport is not None and not self.transport.is_closing()

    def has_unread_bytes(self) -> bool:
        """Whether the kernel holds bytes of the client, or its close, that the event loop has not read yet."""
        if self.transport is None or self.transport.is_closing():
            return False
        descriptor = self.transport.get_extra_info("socket").fileno()
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(0))

    def abort(self) -> None:
        """Close at once, and drop what is not sent yet."""
        if self.transport is not None:
            self.transport.abort()

    def hang_up(self) -> None:
        """Close after what is not sent yet. A client that does not take it is aborted by a later sweep."""
        self.closing_since = self._time()
        if self.transport is not None:
            self.transport.close()


_BACKLOG = 1024


def listening(host: str, port: int) -> socket.socket:
    """A listening socket. Raises OSError."""
    if host != "::":
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return _created(family, address[:2])
    try:
        # Linux maps IPv4 clients to ::ffff:A.B.C.D on such a socket, whatever the machine's `bindv6only` says.
        return _created(socket.AF_INET6, ("::", port))
    except OSError as error:
        if error.errno in _TAKEN:
            raise
        return _created(socket.AF_INET, ("0.0.0.0", port))  # noqa: S104  (a node without IPv6)


def _created(family: int, address: Any) -> socket.socket:
    both = family == socket.AF_INET6 and address[0] == "::"
    return socket.create_server(address, family=family, backlog=_BACKLOG, dualstack_ipv6=both)


class Connections:
    """All connections of one listener.

    `cut` counts, by reason, the connections that the server aborted. A connection is closed after `idle_seconds`
    without a request. While `closes_after_answer` holds, each answer is the last one of its connection. `lost` is
    called after each connection that has ended.
    """

    def __init__(self, limits: Limits, cut: Counter) -> None:
        self._limits = limits
        self._open: set[Connection] = set()
        self._empty = asyncio.Event()
        self._empty.set()
        self.cut = cut
        self.idle_seconds = limits.keep_alive_seconds
        self.closes_after_answer = False
        self.lost: Callable[[], None] = _ignore_loss

    def __len__(self) -> int:
        return len(self._open)

    async def listen(
        self, handler: Any, host: str, port: int, tls: Any = None, *, lingering: float = 2.0
    ) -> asyncio.AbstractServer:
        """Accept connections on `host`:`port` (0 for any free port), over TLS when `tls`, an SSLContext, is given.

        `::` stands for all addresses of both families, and on a machine without IPv6 for those of IPv4. Raises OSError.
        """
        handshake = {"ssl": tls, "ssl_handshake_timeout": self._limits.header_seconds} if tls else {}
        connect = self.factory(handler, lingering=lingering)
        loop = asyncio.get_running_loop()
        return await loop.create_server(connect, sock=listening(host, port), backlog=_BACKLOG, **handshake)

    def factory(self, handler: Any, *, lingering: float = 2.0) -> Callable[[], Connection]:
        """Makes the protocol of one connection, whose requests `handler` answers."""
        loop = asyncio.get_running_loop()
        limits = self._limits
        server = web.Server(handler)

        def connect() -> Connection:
            return Connection(
                self,
                server,
                loop,
                access_log=None,
                max_line_size=limits.header_line_bytes,
                max_field_size=limits.header_line_bytes,
                max_headers=limits.header_count,
                # For this long the server drains a refused body: its client then reads the refusal, and sees no reset.
                lingering_time=lingering,
                read_bufsize=64 << 10,
                # aiohttp would apply no bound to a body before it had expanded it.
                auto_decompress=False,
            )

        return connect

    def add(self, connection: Connection) -> None:
        if len(self._open) >= self._limits.connections:
            self.cut.labels("too_many").inc()
            self._yielding(connection).abort()
        self._open.add(connection)
        self._empty.clear()

    def _yielding(self, connection: Connection) -> Connection:
        """The connection that makes room for a new one, or the new one itself."""
        idle = sorted((each for each in self._open if not each.busy), key=lambda each: each.idle_since)
        # A peer with more connections than the new one's peer loses one, however busy they are: an API server must
        # always get in.
        held = Tally(each.peer for each in self._open)
        most = max(held.values())
        if most > held[connection.peer] + 1:
            greedy = [each for each in idle if held[each.peer] == most]
            # A request that has arrived wins over the close, as in close_overdue, unless all of them have one.
            if yielding := next(
                (each for each in greedy if not each.has_unread_bytes()), greedy[0] if greedy else None
            ):
                return yielding
        # A peer that leaves its connections idle loses them to a peer that wants to use one.
        for each in idle:
            if connection.idle_since - each.idle_since < _EVICT_AFTER_SECONDS:
                break
            if not each.has_unread_bytes():
                return each
        return connection

    def discard(self, connection: Connection) -> None:
        self._open.discard(connection)
        if not self._open:
            self._empty.set()
        self.lost()

    async def sweep(self) -> None:
        """Close the connections that exceed a time limit, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            self.close_overdue(loop.time())

    def close_overdue(self, now: float) -> None:
        """Close the connections that have exceeded a time limit at the loop's time `now`.

        Closing an idle connection races with its client's next request. A request whose bytes have reached this
        machine wins: its connection stays open. One that is still on its way loses: its client reads EOF in place of
        an answer, and Go's client, which the API server uses, repeats a POST only if it had not written a byte of it.
        That window lasts as long as the close takes to reach the client, and HTTP/1.1 has no means to shut it. So a
        server lets its clients close first wherever it can: `keep_alive_seconds` outlasts their idle timeout, and each
        answer of a lame duck asks the client to close. What is left are connections that their clients kept unused for
        the whole `lame_duck_seconds`. A lame duck of more than 90 s outlasts the idle timeout there too.
        """
        for connection in list(self._open):
            if connection.closing_since:
                # Its answer has been sent as far as the client took it; a client that never reads holds no drain up.
                if now - connection.closing_since > _HANG_UP_SECONDS:
                    self.cut.labels("never_closed").inc()
                    connection.abort()
                continue
            if connection.busy:
                continue
            if connection.reading_since and now - connection.reading_since > self._limits.header_seconds:
                self.cut.labels("header_timeout").inc()
                connection.abort()
            elif (
                not connection.reading_since
                and now - connection.idle_since > self.idle_seconds
                and not connection.has_unread_bytes()
            ):
                connection.hang_up()

    async def drained(self, seconds: float) -> bool:
        """Wait until no connection is open. Returns False when that takes longer than `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                await self._empty.wait()
        except TimeoutError:
            return False
        return True

    def abort(self) -> None:
        """Abort the connections that are left."""
        for connection in list(self._open):
            self.cut.labels("grace").inc()
            connection.abort()


def _ignore_loss() -> None:
    pass
