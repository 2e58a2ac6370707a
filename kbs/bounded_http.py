"""What an HTTP client in the guest is built from: one deadline over a whole exchange, and a bound on the answer's size.

`http.client` writes requests and parses answers; the socket and its time are ours. Why no library does this:
docs/decisions/bounded-http.md.
"""

from __future__ import annotations

import http.client
import io
import socket
from typing import Any, Final

from kbs.deadline import Deadline, DeadlineExceededError, call_within

_CHUNK: Final = 64 * 1024
_SWITCHING: Final = 101
_OK: Final = 200
_MAX_INTERIM: Final = 8
_ADDRESS_SECONDS: Final = 5.0  # for one of several addresses: a host with a dead IPv6 route still has an IPv4 one


class NameTimeoutError(DeadlineExceededError):
    """The host's name was not resolved before the deadline."""


class TooLargeError(Exception):
    """The answer's body has more bytes than allowed."""


class TimedSocket:
    """What `http.client` uses of a socket, each operation with the time that one deadline leaves.

    A peer that sends a byte now and then does not extend the deadline. `deadline` is set anew for each request of a
    connection that is kept. As with a real socket, `close` waits for the answer that is still being read.
    """

    def __init__(self, connection: socket.socket, deadline: Deadline) -> None:
        self.deadline = deadline
        self._connection = connection
        self._readers = 0
        self._is_closed = False

    def sendall(self, data: bytes) -> None:
        """As socket.sendall. Raises TimeoutError."""
        self._connection.settimeout(self.deadline.timeout())
        self._connection.sendall(data)

    def receive_into(self, buffer: memoryview) -> int:
        """As socket.recv_into. Raises TimeoutError."""
        self._connection.settimeout(self.deadline.timeout())
        return self._connection.recv_into(buffer)

    def makefile(self, _mode: str) -> io.BufferedReader:
        """A reader of one answer."""
        self._readers += 1
        return io.BufferedReader(_Reader(self))

    def close(self) -> None:
        """Close the connection, once no answer is being read."""
        self._is_closed = True
        if not self._readers:
            self._connection.close()

    def release(self) -> None:
        """A reader has ended."""
        self._readers -= 1
        if self._is_closed:
            self.close()


class FinalResponse(http.client.HTTPResponse):
    """A final answer. Interim ones before it (RFC 9110, 15.2), as 103, are skipped; http.client skips only 100."""

    _interim = 0

    def _read_status(self) -> tuple[str, int, str]:
        version, status, reason = super()._read_status()  # type: ignore[misc]  # not in the stubs
        if _SWITCHING < status < _OK:
            status = http.client.CONTINUE
        if status == http.client.CONTINUE:
            self._interim += 1
            if self._interim > _MAX_INTERIM:
                raise http.client.HTTPException("too many interim answers")
        return version, status, reason


def http_connection(host: str, port: int | None = None) -> http.client.HTTPConnection:
    """A connection that reads final answers alone; the caller gives it its socket."""
    connection = http.client.HTTPConnection(host, port)
    connection.response_class = FinalResponse
    return connection


class _Reader(io.RawIOBase):
    def __init__(self, timed: TimedSocket) -> None:
        self._timed = timed

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # any writable buffer
        return self._timed.receive_into(buffer)

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._timed.release()


def open_connection(host: str, port: int, deadline: Deadline) -> socket.socket:
    """A connection to the first address that takes one, in the system's order. Raises OSError, NameTimeoutError."""
    addresses = _resolve(host, port, deadline)
    last: OSError = OSError("no address")
    for family, kind, protocol, _, address in addresses:
        connection = socket.socket(family, kind, protocol)
        try:
            left = deadline.timeout()
            connection.settimeout(min(left, _ADDRESS_SECONDS) if len(addresses) > 1 else left)
            connection.connect(address)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return connection
        except OSError as error:
            connection.close()
            last = error
        except BaseException:
            connection.close()
            raise
    raise last


def read_body(response: http.client.HTTPResponse, limit: int) -> bytes:
    """The whole body. Raises TooLargeError beyond `limit` bytes, IncompleteRead when it ends too early."""
    if response.length is not None and response.length > limit:
        raise TooLargeError(f"answer has {response.length} bytes, at most {limit} allowed")
    body = b""
    while chunk := response.read(min(_CHUNK, limit + 1 - len(body))):
        body += chunk
        if len(body) > limit:
            raise TooLargeError(f"answer has more than the {limit} bytes allowed")
    # read(n) of a connection that ends too early raises nothing, unless all was asked for at once.
    if response.length:
        raise http.client.IncompleteRead(b"", response.length)
    return body


def _resolve(host: str, port: int, deadline: Deadline) -> list[tuple[Any, ...]]:
    try:
        return [*socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)]
    except socket.gaierror:
        pass
    # The resolver takes no timeout.
    try:
        return call_within(deadline, f"name {host}", lambda: [*socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)])
    except DeadlineExceededError:
        raise NameTimeoutError from None
