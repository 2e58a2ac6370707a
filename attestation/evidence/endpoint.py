"""One bounded HTTP GET to a service in the guest: total deadline, size limit, no redirects, no proxies."""

from __future__ import annotations

import errno
import os
import socket
from ipaddress import ip_address
from typing import Final, Protocol
from urllib.parse import urlsplit

from attestation.evidence.deadline import deadline_missed
from attestation.evidence.errors import Code, EvidenceError
from kbs.bounded_http import (
    HttpConnection,
    HttpError,
    IncompleteError,
    NoAnswerError,
    TooLargeError,
    host_field,
    open_connection,
)
from kbs.deadline import Deadline

_NOT_THERE = frozenset(
    {errno.ENOENT, errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.ENOTSOCK}
)


_LONGEST_PATH: Final = 107


class Address(Protocol):
    """Where a source listens."""

    def connect(self, deadline: Deadline) -> socket.socket: ...

    @property
    def host_header(self) -> str: ...


class TcpAddress:
    """`http://HOST:PORT`."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port

    def connect(self, deadline: Deadline) -> socket.socket:
        return open_connection(self.host, self.port, deadline)

    @property
    def host_header(self) -> str:
        return host_field(self.host, self.port)


class UnixAddress:
    """`unix:/PATH`."""

    def __init__(self, path: str) -> None:
        self.path = path

    def connect(self, deadline: Deadline) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(deadline.timeout())
            self._connect(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _connect(self, connection: socket.socket) -> None:
        """A socket's path has 107 bytes; a longer one is reached through its folder."""
        if len(os.fsencode(self.path)) <= _LONGEST_PATH:
            connection.connect(self.path)
            return
        folder, _, name = self.path.rpartition("/")
        opened = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            connection.connect(f"/proc/self/fd/{opened}/{name}")
        finally:
            os.close(opened)

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
            source,
            Code.BAD_ADDRESS,
            "address is neither http://HOST:PORT, such as http://127.0.0.1:8006, nor unix:/PATH",
        )
    return TcpAddress(host, port)


def require_loopback(source: str, address: Address) -> None:
    """Another machine's agent attests another machine. Raises EvidenceError(BAD_ADDRESS)."""
    if isinstance(address, TcpAddress) and not _is_loopback(address.host):
        raise EvidenceError(source, Code.BAD_ADDRESS, "the agent's address is not on loopback")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def get(source: str, address: Address, target: str, *, timeout: float, limit: int, on_404: Code) -> bytes:
    """The body of a 200 answer of at most `limit` bytes, within `timeout` seconds in all. Raises EvidenceError."""
    deadline = Deadline(timeout)
    try:
        connection = address.connect(deadline)
    except TimeoutError:
        raise deadline_missed(source, timeout) from None
    except PermissionError:
        raise EvidenceError(source, Code.PERMISSION_DENIED, "may not connect") from None
    except OSError as error:
        if error.errno in _NOT_THERE or isinstance(error, socket.gaierror):
            raise EvidenceError(source, Code.NOT_THERE, "nothing listens there") from None
        raise EvidenceError(source, Code.DEVICE_ERROR, f"cannot connect: {_name(error)}") from None
    with connection:
        try:
            return _exchange(source, HttpConnection(connection, address.host_header, deadline), target, limit, on_404)
        except TimeoutError:
            raise deadline_missed(source, timeout) from None
        except TooLargeError as error:
            raise EvidenceError(source, Code.TOO_LARGE, str(error)) from None
        except IncompleteError:
            raise EvidenceError(source, Code.SHORT_ANSWER, "answer ends before its announced length") from None
        except (NoAnswerError, ConnectionError):
            raise EvidenceError(source, Code.AGENT_ERROR, "connection ended without an answer") from None
        except (HttpError, ValueError):
            raise EvidenceError(source, Code.MALFORMED, "answer is not HTTP") from None
        except OSError as error:
            raise EvidenceError(source, Code.DEVICE_ERROR, f"connection failed: {_name(error)}") from None


def _exchange(source: str, connection: HttpConnection, target: str, limit: int, on_404: Code) -> bytes:
    connection.send("GET", target, [("Connection", "close")])
    head = connection.receive_head()
    _require_ok(source, head.status, on_404)
    return connection.receive_body(head, limit)


def _require_ok(source: str, status: int, on_404: Code) -> None:
    if status == 200:
        return
    if status == 404:
        code, words = on_404, "does not offer this"
    elif 300 <= status < 400:
        code, words = Code.REDIRECTED, "redirects, which is never followed"
    elif status in (429, 503):
        code, words = Code.THROTTLED, "is busy"
    elif status >= 500:
        code, words = Code.AGENT_ERROR, "failed"
    else:
        code, words = Code.REFUSED, "refused the request"
    raise EvidenceError(source, code, f"HTTP {status}: it {words}")


def _name(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, type(error).__name__)
