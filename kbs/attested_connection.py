"""One TLS connection to one address of a verifier, and the key that its handshake showed.

What a caller learns and sends here is worth what the attestation of that key is worth. So the connection is never
opened again by itself: another one would be another handshake, perhaps with another party.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

from kbs.bounded_http import HttpConnection, HttpError, TooLargeError, host_field, open_connection
from kbs.deadline import Deadline, DeadlineExceededError
from kbs.endpoint import https_parts
from kbs.spki import spki_digest
from kbs.trust import tls_name, trusting

_JSON: Final = {"Content-Type": "application/json"}
_NONE: Final[Mapping[str, str]] = {}


class UnreachableError(Exception):
    """No answer from this address: one line, without anything that was sent."""


@dataclass(frozen=True, slots=True)
class Address:
    """One place of a verifier. `host` is the name in the URL; `literal` is one of the addresses that it resolves to."""

    host: str
    literal: str
    port: int
    prefix: str = ""

    def __str__(self) -> str:
        shown = f"[{self.literal}]" if ":" in self.literal else self.literal
        return f"{shown}:{self.port}"


@dataclass(frozen=True, slots=True)
class Answer:
    """Status and body of an answer."""

    status: int
    body: bytes


def addresses_of(url: str) -> tuple[Address, ...]:
    """Every address that the URL has, each once. Raises ValueError for a URL of another form, UnreachableError."""
    host, port, prefix = https_parts(url)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise UnreachableError(f"{host}: the name cannot be resolved: {error.strerror}") from None
    literals = dict.fromkeys(str(address[0]) for *_, address in found)
    return tuple(Address(host, literal, port, prefix) for literal in literals)


class Connection:
    """Connects at once. `spki`: SHA-256 of the SubjectPublicKeyInfo of the certificate that the handshake showed.

    `ca`: PEM, to which the certificate has to lead; empty where the attestation alone says whom to trust.
    Raises UnreachableError, and ValueError where `ca` holds no certificate.
    """

    def __init__(self, address: Address, ca: str, seconds: float) -> None:
        self._address = address
        self._deadline = Deadline(seconds)
        try:
            self._socket = self._handshake(_context(ca))
        except (OSError, DeadlineExceededError) as error:
            raise UnreachableError(f"{address}: {_cause(error)}") from None
        try:
            self.spki = spki_digest(self._socket.getpeercert(binary_form=True) or b"")
        except ValueError as error:
            self._socket.close()
            raise UnreachableError(f"{address}: it shows {error}") from None
        self._http = HttpConnection(self._socket, host_field(address.host, address.port, 443), self._deadline)

    def request(
        self, method: str, path: str, body: bytes = b"", *, limit: int, headers: Mapping[str, str] = _NONE
    ) -> Answer:
        """One exchange on this very connection. Raises UnreachableError, also where the other end has closed it."""
        try:
            if not self._http.is_ready:
                raise UnreachableError(f"{self._address}: the connection was closed; nothing more was sent")
            sent = {**headers, **(_JSON if body else {})}
            self._http.send(method, self._address.prefix + path, sent.items(), body or None)
            head = self._http.receive_head()
            return Answer(head.status, self._http.receive_body(head, limit))
        except (OSError, HttpError, DeadlineExceededError, TooLargeError) as error:
            raise UnreachableError(f"{self._address}: {_cause(error)}") from None

    def close(self) -> None:
        """Close the connection."""
        self._http.close()
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _handshake(self, context: ssl.SSLContext) -> ssl.SSLSocket:
        plain = open_connection(self._address.literal, self._address.port, self._deadline)
        try:
            plain.settimeout(self._deadline.timeout())
            return context.wrap_socket(plain, server_hostname=tls_name(self._address.host))
        except BaseException:
            plain.close()
            raise


def _context(ca: str) -> ssl.SSLContext:
    context = trusting(ca)
    # A connection shows one certificate for its whole life: TLS 1.3 has no renegotiation.
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    if not ca:
        # A sealed verifier has no CA yet. Its report names the key of this handshake, which no other party has.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _cause(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate does not lead to the CA: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {error.reason or 'no answer'}"
    if isinstance(error, (TimeoutError, DeadlineExceededError)):
        return "no answer in time"
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return "the answer is not HTTP that can be read"
