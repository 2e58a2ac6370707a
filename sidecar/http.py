"""HTTPS to the verifier and to Vault: the plan's CA, bounded answers, one deadline, no redirects, no proxies."""

from __future__ import annotations

import http.client
import io
import json
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from attestation.evidence.deadline import within
from attestation.evidence.errors import EvidenceError
from sidecar.deadline import Deadline
from sidecar.errors import Exit, RefusalError

# A replica that hangs must leave time for another; the verifier itself answers or refuses within 20 s.
ATTEMPT_SECONDS: Final = 20.0
_CONNECT_SECONDS: Final = 5.0  # an address: a host with a dead IPv6 route still has an IPv4 one
_CHUNK: Final = 64 * 1024
_BUSY: Final = frozenset({429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Party:
    """The other side: its name for people, the start of its reasons, and the exit codes it stands for.

    `another`: statuses of a replica that cannot answer where the next one may.
    """

    name: str
    reason: str
    refused: Exit
    unreachable: Exit
    another: frozenset[int] = frozenset()


VERIFIER: Final = Party("the verifier", "verifier", Exit.VERIFIER_REFUSED, Exit.VERIFIER_UNREACHABLE)
# Vault's standby nodes: 307 while they cannot forward to the active one, whose address we are not sent to all the same;
# 412 before they have caught up with what the token needs (developer.hashicorp.com/vault, "Eventual consistency").
_STANDBY: Final = frozenset({307, 412})
VAULT: Final = Party("Vault", "vault", Exit.VAULT_REFUSED, Exit.VAULT_UNREACHABLE, _STANDBY)


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that is neither busy nor elsewhere."""

    status: int
    body: bytes = field(repr=False)


def json_object(body: bytes) -> dict[str, Any]:
    """The JSON object in it; an empty one for anything else."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    return found if isinstance(found, dict) else {}


class Client:
    """One connection to one party, opened when first needed and again when it is gone."""

    def __init__(self, party: Party, url: str, ca: str, *, limit: int) -> None:
        self.party = party
        self._host, self._port, self._prefix = _parse(party, url)
        self._ca = ca
        self._limit = limit
        self._context: ssl.SSLContext | None = None
        self._connection: http.client.HTTPConnection | None = None
        self.clock_ahead: float | None = None
        """Seconds by which our clock is ahead of the party's, as its last answer's Date said; None without one."""

    def call(
        self,
        deadline: Deadline,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request and its answer. Raises RefusalError; with `again` where a later one may do better."""
        timer = _Timer(min(deadline.remaining(), ATTEMPT_SECONDS))
        try:
            connection = self._connected(timer)
            connection.putrequest(method, self._prefix + path, skip_accept_encoding=True)
            for name, value in (headers or {}).items():
                connection.putheader(name, value)
            if body is not None:
                connection.putheader("Content-Type", "application/json")
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            with connection.getresponse() as response:
                return self._read(response)
        except RefusalError:
            self.close()
            raise
        except BaseException as error:
            self.close()
            raise self._translated(error) from None

    def close(self) -> None:
        """Drop the connection; the next call makes another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connected(self, timer: _Timer) -> http.client.HTTPConnection:
        if self._connection is None:
            if self._context is None:
                self._context = self._trust()
            plain = _connect(self._host, self._port, timer)
            try:
                plain.settimeout(timer.left())
                secured = self._context.wrap_socket(plain, server_hostname=self._host)
            except BaseException:
                plain.close()
                raise
            # http.client writes requests and parses answers; the socket and its time are ours.
            self._connection = http.client.HTTPConnection(self._host, self._port)
            self._connection.default_port = 443
            self._connection.sock = _Timed(secured, timer)
            self._timed = self._connection.sock
        self._timed.timer = timer
        return self._connection

    def _trust(self) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(cadata=self._ca or None)
        except (ssl.SSLError, ValueError):
            raise RefusalError(
                Exit.CONFIGURATION, f"{self.party.reason}-ca", f"the plan's CA for {self.party.name} is not PEM"
            ) from None

    def _read(self, response: http.client.HTTPResponse) -> Answer:
        self._compare_clocks(response.headers.get("Date"))
        status = response.status
        if 300 <= status < 400 and status not in self.party.another:
            raise RefusalError(
                self.party.unreachable,
                f"{self.party.reason}-redirects",
                f"{self.party.name} answers HTTP {status} and wants to send us elsewhere, which is never followed",
            )
        body = b""
        while chunk := response.read(min(_CHUNK, self._limit + 1 - len(body))):
            body += chunk
            if len(body) > self._limit:
                raise RefusalError(
                    self.party.unreachable,
                    f"{self.party.reason}-answer-too-large",
                    f"{self.party.name} answers with more than {self._limit} bytes",
                )
        if response.length:
            raise http.client.IncompleteRead(b"")
        if status in _BUSY | self.party.another:
            raise RefusalError(
                self.party.unreachable,
                f"{self.party.reason}-busy",
                f"{self.party.name} is there and cannot answer now (HTTP {status})",
                again=True,
                retry_after=_retry_after(response.headers.get("Retry-After")),
            )
        if response.will_close:
            self.close()
        return Answer(status, body)

    def _compare_clocks(self, date: str | None) -> None:
        seconds = _http_date(date)
        self.clock_ahead = None if seconds is None else time.time() - seconds

    def _translated(self, error: BaseException) -> BaseException:
        where = f"{self.party.name} at {self._host}:{self._port}"
        if isinstance(error, ssl.SSLCertVerificationError):
            now = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
            return RefusalError(
                self.party.unreachable,
                f"{self.party.reason}-not-trusted",
                f"{where} shows a certificate that the plan's CA does not vouch for: {error.verify_message}"
                f" (this guest's clock says {now})",
            )
        if isinstance(error, TimeoutError):
            words = "no answer in time"
        elif isinstance(error, EvidenceError):
            words = "its name was not resolved in time"
        elif isinstance(error, (socket.gaierror, UnicodeError)):
            words = "its name is not known"
        elif isinstance(error, ssl.SSLError):
            words = "TLS failed"
        elif isinstance(error, (http.client.HTTPException, OSError)):
            words = type(error).__name__
        else:
            return error
        return RefusalError(
            self.party.unreachable, f"{self.party.reason}-unreachable", f"cannot reach {where}: {words}", again=True
        )


class _Timer:
    """What is left of one attempt."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds, more than 0. Raises TimeoutError."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


class _Timed:
    """A socket whose every operation gets what is left of one attempt: a trickle of bytes does not extend it."""

    def __init__(self, connection: ssl.SSLSocket, timer: _Timer) -> None:
        self._connection = connection
        self.timer = timer

    def sendall(self, data: bytes) -> None:
        self._connection.settimeout(self.timer.left())
        self._connection.sendall(data)

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Reader(self))

    def close(self) -> None:
        self._connection.close()

    def receive_into(self, buffer: memoryview) -> int:
        self._connection.settimeout(self.timer.left())
        return self._connection.recv_into(buffer)


class _Reader(io.RawIOBase):
    def __init__(self, timed: _Timed) -> None:
        self._timed = timed

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # any writable buffer
        return self._timed.receive_into(buffer)


def _parse(party: Party, url: str) -> tuple[str, int, str]:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = parts = None
    # What a request line or a certificate's name cannot carry would fail later, and look like an outage.
    plain = url.isascii() and url.isprintable() and " " not in url
    if (
        parts is None
        or not host
        or not plain
        or parts.scheme != "https"
        or parts.query
        or parts.fragment
        or "@" in parts.netloc
    ):
        raise RefusalError(
            Exit.CONFIGURATION,
            f"{party.reason}-url",
            f"the plan's address of {party.name} is no https://HOST[:PORT][/PATH]",
        )
    return host, port or 443, parts.path.rstrip("/")


def _connect(host: str, port: int, timer: _Timer) -> socket.socket:
    """A connection to the first address that takes one, IPv6 and IPv4 in the system's order."""
    addresses = _resolve(host, port, timer)
    last: OSError = OSError("no address")
    for family, kind, protocol, _, address in addresses:
        plain = socket.socket(family, kind, protocol)
        try:
            plain.settimeout(min(timer.left(), _CONNECT_SECONDS) if len(addresses) > 1 else timer.left())
            plain.connect(address)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return plain
        except OSError as error:
            plain.close()
            last = error
        except BaseException:
            plain.close()
            raise
    raise last


def _resolve(host: str, port: int, timer: _Timer) -> list[tuple[Any, ...]]:
    try:
        return [*socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)]
    except socket.gaierror:
        pass
    # The resolver knows no deadline of ours: it works in a thread that is left behind when it takes too long.
    return within("name", timer.left(), lambda: [*socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)])


def _retry_after(value: str | None) -> float | None:
    """Seconds of RFC 9110, 10.2.3, in either form."""
    if value is None:
        return None
    if value.isascii() and value.isdigit():
        return float(value[:9])
    seconds = _http_date(value)
    return None if seconds is None else max(0.0, seconds - time.time())


def _http_date(value: str | None) -> float | None:
    """Seconds since 1970 of an HTTP date."""
    if value is None:
        return None
    from email.utils import parsedate_to_datetime

    try:
        return parsedate_to_datetime(value).timestamp()
    except (ValueError, OverflowError):
        return None
