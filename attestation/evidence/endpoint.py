"""One bounded HTTP GET to a service beside us: total deadline, size limit, no redirects, no proxies."""

from __future__ import annotations

import errno
import http.client
import io
import socket
from typing import Protocol
from urllib.parse import urlsplit

from attestation.evidence.deadline import Deadline
from attestation.evidence.errors import Code, EvidenceError

_CHUNK = 64 * 1024
_NOT_THERE = frozenset(
    {errno.ENOENT, errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.ENOTSOCK}
)


class Address(Protocol):
    """Where to connect to."""

    def connect(self, timeout: float) -> socket.socket: ...

    @property
    def host_header(self) -> str: ...


class TcpAddress:
    """`http://HOST:PORT`."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port

    def connect(self, timeout: float) -> socket.socket:
        return socket.create_connection((self.host, self.port), timeout)

    @property
    def host_header(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class UnixAddress:
    """`unix:/PATH`."""

    def __init__(self, path: str) -> None:
        self.path = path

    def connect(self, timeout: float) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(timeout)
            connection.connect(self.path)
        except BaseException:
            connection.close()
            raise
        return connection

    @property
    def host_header(self) -> str:
        return "localhost"


def parse_address(source: str, text: str) -> TcpAddress | UnixAddress:
    """`http://HOST:PORT` or `unix:/PATH`. Raises EvidenceError(BAD_ADDRESS)."""
    if text.startswith("unix:/"):
        return UnixAddress(text.removeprefix("unix:"))
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or port is None or parts.scheme != "http" or parts.path not in ("", "/") or parts.query or "@" in text:
        raise EvidenceError(
            source, Code.BAD_ADDRESS, "address is no http://HOST:PORT (as http://127.0.0.1:8006) and no unix:/PATH"
        )
    return TcpAddress(host, port)


def get(source: str, address: Address, target: str, *, timeout: float, limit: int, on_404: Code) -> bytes:
    """The body of a 200 answer of at most `limit` bytes, within `timeout` seconds in all. Raises EvidenceError."""
    deadline = Deadline(timeout)
    try:
        connection = address.connect(max(deadline.remaining(), 1e-3))
    except TimeoutError:
        raise deadline.missed(source) from None
    except PermissionError:
        raise EvidenceError(source, Code.PERMISSION_DENIED, "may not connect") from None
    except OSError as error:
        if error.errno in _NOT_THERE or isinstance(error, socket.gaierror):
            raise EvidenceError(source, Code.NOT_THERE, "nobody listens there") from None
        raise EvidenceError(source, Code.DEVICE_ERROR, f"cannot connect: {_name(error)}") from None
    with connection:
        try:
            return _exchange(source, _Timed(connection, deadline), address, target, limit, on_404)
        except TimeoutError:
            raise deadline.missed(source) from None
        except http.client.IncompleteRead:
            raise EvidenceError(source, Code.SHORT_ANSWER, "answer ends before its announced length") from None
        except (http.client.RemoteDisconnected, ConnectionError):
            raise EvidenceError(source, Code.AGENT_ERROR, "connection ended without an answer") from None
        except (http.client.HTTPException, ValueError):
            raise EvidenceError(source, Code.MALFORMED, "answer is not HTTP") from None
        except OSError as error:
            raise EvidenceError(source, Code.DEVICE_ERROR, f"connection failed: {_name(error)}") from None


def _exchange(source: str, timed: _Timed, address: Address, target: str, limit: int, on_404: Code) -> bytes:
    # http.client checks what goes into the request line and parses the answer; the socket's time is ours.
    request = http.client.HTTPConnection("localhost")
    request.sock = timed  # it uses sendall, makefile and close only
    request.putrequest("GET", target, skip_host=True, skip_accept_encoding=True)
    request.putheader("Host", address.host_header)
    request.putheader("Connection", "close")
    request.endheaders()
    with request.getresponse() as response:
        _require_ok(source, response.status, on_404)
        if response.length is not None and response.length > limit:
            raise EvidenceError(source, Code.TOO_LARGE, f"answer has {response.length} bytes, at most {limit} allowed")
        body = b""
        # read(n) with a short connection raises IncompleteRead only when asked for all of it, so the rest is checked.
        while chunk := response.read(min(_CHUNK, limit + 1 - len(body))):
            body += chunk
            if len(body) > limit:
                raise EvidenceError(source, Code.TOO_LARGE, f"answer has more than the {limit} bytes allowed")
        if response.length:
            raise http.client.IncompleteRead(body, response.length)
        return body


def _require_ok(source: str, status: int, on_404: Code) -> None:
    if status == 200:
        return
    if status == 404:
        code, words = on_404, "does not offer this"
    elif 300 <= status < 400:
        code, words = Code.REDIRECTED, "wants to send us elsewhere, which is never followed"
    elif status in (429, 503):
        code, words = Code.THROTTLED, "is busy"
    elif status >= 500:
        code, words = Code.AGENT_ERROR, "failed"
    else:
        code, words = Code.REFUSED, "refused the request"
    raise EvidenceError(source, code, f"HTTP {status}: it {words}")


class _Timed:
    """A socket whose every operation gets what is left of one deadline: a trickle of bytes does not extend it."""

    def __init__(self, connection: socket.socket, deadline: Deadline) -> None:
        self._connection, self._deadline = connection, deadline

    def _set(self) -> None:
        left = self._deadline.remaining()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(left)

    def sendall(self, data: bytes) -> None:
        self._set()
        self._connection.sendall(data)

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Reader(self))

    def close(self) -> None:
        """Closed by whoever connected it."""

    def receive_into(self, buffer: memoryview) -> int:
        self._set()
        return self._connection.recv_into(buffer)


class _Reader(io.RawIOBase):
    def __init__(self, timed: _Timed) -> None:
        self._timed = timed

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # any writable buffer
        return self._timed.receive_into(buffer)


def _name(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, type(error).__name__)
