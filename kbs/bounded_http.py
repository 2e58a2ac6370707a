"""The HTTP client in the guest: one deadline over a whole exchange, bounded answers, and few imports.

HTTP/1.1 as RFC 9112 defines it, without what no peer of a guest needs: no redirects, proxies, upgrades, pipelining or
continuation lines. What could be read in two ways is refused. Why no library does this: docs/decisions/bounded-http.md.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from kbs.deadline import Deadline, DeadlineExceededError, call_within

_CHUNK: Final = 64 * 1024
_SWITCHING: Final = 101
_OK: Final = 200
_BODYLESS: Final = frozenset({204, 304})
_MAX_HEAD: Final = 64 * 1024  # bytes of a status line and its fields, and of all fields behind a chunked body
_MAX_FIELDS: Final = 100
_MAX_CHUNK_LINE: Final = 256  # a chunk's size and what may stand behind it
_MAX_SIZE_DIGITS: Final = 15
_MAX_INTERIM: Final = 8
_TOKEN: Final = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"  # RFC 9110, 5.6.2
_END_OF_LINE: Final = b"\r\n"
# For each address: a dead IPv6 route leaves time for IPv4. Where packets are swallowed, the kernel waits ever longer
# before it tries again: a new attempt meets a peer sooner that is back, and is logged.
_ADDRESS_SECONDS: Final = 5.0


class NameTimeoutError(DeadlineExceededError):
    """The host's name was not resolved before the deadline."""


class TooLargeError(Exception):
    """The answer's body has more bytes than allowed."""


class HttpError(Exception):
    """Not an answer of HTTP/1.1, or one that could be read in two ways. The text names the part, never its content."""


class IncompleteError(HttpError):
    """The connection ended within an answer's body."""


class NoAnswerError(HttpError):
    """The connection ended before an answer began, or with the answer before this request."""


class Head(NamedTuple):
    """A final answer's status and fields. Names are lower-case; the values of one name are joined by a comma."""

    status: int
    fields: Mapping[str, str]
    is_kept: bool
    """The connection stays open after this answer, as far as the peer says."""


class HttpConnection:
    """Requests and their answers on one connection, one after the other.

    Each operation on the socket has the time that `deadline` leaves, so a peer that sends a byte now and then does not
    extend it. Set it anew for each request of a connection that is kept. `host`: what the Host field says.
    """

    def __init__(self, connection: socket.socket, host: str, deadline: Deadline) -> None:
        self.deadline = deadline
        self._connection = connection
        self._host = host
        self._read = bytearray()  # bytes that have arrived and are not used yet
        self._is_ready = True

    @property
    def is_ready(self) -> bool:
        """The next request can be sent: the last answer was read whole, and the peer keeps the connection."""
        return self._is_ready

    def send(self, method: str, target: str, fields: Iterable[tuple[str, str]] = (), body: bytes | None = None) -> None:
        """Send a request. Raises NoAnswerError on a connection that is not ready, OSError, TimeoutError."""
        if not self._is_ready:
            raise NoAnswerError("the connection was closed")
        self._is_ready = False
        lines = [f"{method} {target} HTTP/1.1", f"Host: {self._host}", *(f"{name}: {value}" for name, value in fields)]
        if body is not None:
            lines.append(f"Content-Length: {len(body)}")
        for line in lines:
            # A value with a line break in it would be read as more lines.
            if not line.isascii() or not line.isprintable():
                raise ValueError("a line of the request is not printable ASCII")
        head = "\r\n".join((*lines, "", "")).encode()
        self._connection.settimeout(self.deadline.timeout())
        self._connection.sendall(head + (body or b""))

    def receive_head(self) -> Head:
        """The head of the final answer; interim ones before it (RFC 9110, 15.2), as 103, are skipped.

        Raises NoAnswerError, HttpError, OSError, TimeoutError.
        """
        for _ in range(_MAX_INTERIM + 1):
            head = _parse(self._take_head())
            if head.status >= _OK:
                return head
            if head.status == _SWITCHING:
                raise HttpError("the answer changes the protocol")
        raise HttpError("too many interim answers")

    def receive_body(self, head: Head, limit: int) -> bytes:
        """The whole body of this answer; afterwards the connection is ready, or closed.

        Raises TooLargeError beyond `limit` bytes, IncompleteError where it ends too early, HttpError, OSError,
        TimeoutError.
        """
        coding, length = head.fields.get("transfer-encoding"), head.fields.get("content-length")
        is_kept = head.is_kept
        if head.status in _BODYLESS:
            body = b""
        elif coding is not None:
            # Of two framings, which two readers could choose between, none counts.
            if coding.lower() != "chunked" or length is not None:
                raise HttpError("the body's framing is not one that is known")
            body = self._chunked(limit)
        elif length is not None:
            size = _size(length, 10)
            if size > limit:
                raise TooLargeError(f"answer has {size} bytes, at most {limit} allowed")
            body = self._exactly(size)
        else:
            body, is_kept = self._rest(limit), False
        # Bytes that no request asked for must not pass for the next answer.
        if is_kept and not self._read:
            self._is_ready = True
        else:
            self.close()
        return body

    def close(self) -> None:
        """Close the connection."""
        self._is_ready = False
        self._connection.close()

    def _take_head(self) -> bytes:
        """Up to the first empty line, without it; another protocol is noticed by its first line."""
        start = 0
        while (end := self._read.find(b"\r\n\r\n", start)) < 0:
            if b"\n" in self._read and not self._read.startswith(b"HTTP/1."):
                raise HttpError("the answer is not HTTP/1.1")
            if len(self._read) > _MAX_HEAD:
                raise HttpError("the head is too large")
            start = max(0, len(self._read) - 3)
            if not self._more():
                raise HttpError("the head ends too early") if self._read else NoAnswerError("no answer")
        if end > _MAX_HEAD:
            raise HttpError("the head is too large")
        return self._take(end + 4)[:end]

    def _chunked(self, limit: int) -> bytes:
        """RFC 9112, 7.1; extensions of chunks and fields behind them are skipped."""
        body = bytearray()
        while size := _size(self._line(_MAX_CHUNK_LINE).partition(b";")[0].strip(b" \t").decode("latin-1"), 16):
            if len(body) + size > limit:
                raise TooLargeError(f"answer has more than the {limit} bytes allowed")
            body += self._exactly(size)
            if self._exactly(2) != _END_OF_LINE:
                raise HttpError("a chunk is longer than it says")
        left = _MAX_HEAD
        while line := self._line(left):
            left -= len(line) + 2
        return bytes(body)

    def _line(self, most: int) -> bytes:
        """Up to the next end of line, without it."""
        while (end := self._read.find(_END_OF_LINE)) < 0 and len(self._read) <= most:
            if not self._more():
                raise IncompleteError("the body ends too early")
        if not 0 <= end <= most:
            raise HttpError("a line within the body is too long")
        return self._take(end + 2)[:end]

    def _exactly(self, size: int) -> bytes:
        while len(self._read) < size:
            if not self._more():
                raise IncompleteError("the body ends too early")
        return self._take(size)

    def _rest(self, limit: int) -> bytes:
        while len(self._read) <= limit:
            if not self._more():
                return self._take(len(self._read))
        raise TooLargeError(f"answer has more than the {limit} bytes allowed")

    def _take(self, size: int) -> bytes:
        taken = bytes(self._read[:size])
        del self._read[:size]
        return taken

    def _more(self) -> bool:
        """Wait for more bytes; False where the connection has ended."""
        self._connection.settimeout(self.deadline.timeout())
        arrived = self._connection.recv(_CHUNK)
        self._read += arrived
        return bool(arrived)


def host_field(host: str, port: int, default: int | None = None) -> str:
    """The Host field for a host and port; `default` is the port that goes without saying."""
    name = f"[{host}]" if ":" in host else host
    return name if port == default else f"{name}:{port}"


def _parse(head: bytes) -> Head:
    """A status line and its fields. Raises HttpError for what is not exactly that."""
    first, *lines = head.split(_END_OF_LINE)
    version, _, rest = first.partition(b" ")
    code, _, _ = rest.partition(b" ")
    if version not in (b"HTTP/1.1", b"HTTP/1.0") or len(code) != 3 or not code.isdigit() or code < b"100":
        raise HttpError("the answer is not HTTP/1.1")
    if len(lines) > _MAX_FIELDS:
        raise HttpError("the head has too many fields")
    fields: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        # Also a line that continues the one before it, or a line end of one character.
        if not colon or not name or name.translate(None, _TOKEN) or any(each in value for each in b"\r\n\0"):
            raise HttpError("a line of the head is not a field")
        key, text = name.decode().lower(), value.strip(b" \t").decode("latin-1")
        fields[key] = f"{fields[key]}, {text}" if key in fields else text
    options = {each.strip().lower() for each in fields.get("connection", "").split(",")}
    is_new = version == b"HTTP/1.1"
    if "transfer-encoding" in fields and not is_new:
        raise HttpError("the body's framing is not one that is known")
    return Head(int(code), fields, is_kept=is_new and "close" not in options)


def _size(text: str, base: int) -> int:
    """A number of bytes in digits alone: int() also takes signs, spaces and underscores. Raises HttpError."""
    digits = "0123456789abcdefABCDEF"[: 10 if base == 10 else None]
    if not 0 < len(text) <= _MAX_SIZE_DIGITS or text.strip(digits):
        raise HttpError("a length is not a number")
    return int(text, base)


def open_connection(host: str, port: int, deadline: Deadline) -> socket.socket:
    """A connection to the first address that takes one, in the system's order. Raises OSError, NameTimeoutError."""
    addresses = _resolve(host, port, deadline)
    last: OSError = OSError("no address")
    for family, kind, protocol, _, address in addresses:
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(min(deadline.timeout(), _ADDRESS_SECONDS))
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
