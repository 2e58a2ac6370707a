"""HTTPS to the verifier and to Vault: the plan's CA, bounded answers, one deadline, no redirects, no proxies."""

from __future__ import annotations

import json
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from kbs.bounded_http import (
    HttpConnection,
    HttpError,
    NameTimeoutError,
    TooLargeError,
    host_field,
    open_connection,
)
from kbs.deadline import Deadline
from kbs.endpoint import FORM, https_parts
from kbs.guest import read_error
from kbs.http_date import seconds_since_1970
from kbs.messages import ErrorType
from kbs.trust import tls_name, trusting
from sidecar.errors import SidecarError
from sidecar.reasons import Reason

# For one attempt, so that a replica that hangs leaves time for another; the verifier answers within 20 s.
ATTEMPT_SECONDS: Final = 20.0
_CANNOT_NOW: Final = "cannot answer now"
_BUSY: Final = frozenset({429, 500, 502, 503, 504})


class Busy(NamedTuple):
    """Why a server cannot answer now, in words that follow its name."""

    reason: Reason
    words: str
    correlation_id: str = ""


class Party(NamedTuple):
    """The server on the other side: its name for people, and the reason for each way in which a call can fail.

    `try_another`: statuses of a replica that cannot answer where the next one may.
    `explain`: reads a busy server's answer; None where its answers say nothing of use.
    `stays`: a busy server is called again on the same connection, because another replica does not know the session.
    """

    name: str
    url: Reason
    ca: Reason
    unreachable: Reason
    not_trusted: Reason
    busy: Reason
    redirects: Reason
    answer: Reason
    answer_too_large: Reason
    try_another: frozenset[int] = frozenset()
    explain: Callable[[bytes], Busy] | None = None
    stays: bool = False


_VERIFIER_BUSY: Final[Mapping[str, tuple[Reason, str]]] = {
    ErrorType.SESSION: (Reason.VERIFIER_SESSION, "does not know this attestation: another replica began it"),
    ErrorType.SEALED: (Reason.VERIFIER_SEALED, "waits for the secrets that people provision"),
    ErrorType.CLOCK: (Reason.VERIFIER_CLOCK, "does not serve, because its own clock is off"),
    ErrorType.VAULT_SEALED: (Reason.VERIFIER_VAULT_SEALED, "waits for Vault, which is sealed"),
    ErrorType.VAULT: (Reason.VERIFIER_VAULT_UNAVAILABLE, "waits for Vault, which gives it no usable answer"),
    ErrorType.CLUSTER: (Reason.VERIFIER_CLUSTER_UNAVAILABLE, "waits for the API server of this pod's cluster"),
    ErrorType.EVIDENCE: (Reason.VERIFIER_BUSY, "has no evidence of its own at the moment"),
    ErrorType.CERTIFICATES: (Reason.VERIFIER_CERTIFICATES_UNAVAILABLE, "waits for the certificates of this chip"),
}


def _explained(body: bytes) -> Busy:
    error = read_error(body)
    reason, words = _VERIFIER_BUSY.get(error.problem, (Reason.VERIFIER_BUSY, _CANNOT_NOW))
    return Busy(reason, words, error.correlation_id)


VERIFIER: Final = Party(
    name="the verifier",
    url=Reason.VERIFIER_URL,
    ca=Reason.VERIFIER_CA,
    unreachable=Reason.VERIFIER_UNREACHABLE,
    not_trusted=Reason.VERIFIER_NOT_TRUSTED,
    busy=Reason.VERIFIER_BUSY,
    redirects=Reason.VERIFIER_REDIRECTS,
    answer=Reason.VERIFIER_ANSWER,
    answer_too_large=Reason.VERIFIER_ANSWER_TOO_LARGE,
    explain=_explained,
    stays=True,
)
VAULT: Final = Party(
    name="Vault",
    url=Reason.VAULT_URL,
    ca=Reason.VAULT_CA,
    unreachable=Reason.VAULT_UNREACHABLE,
    not_trusted=Reason.VAULT_NOT_TRUSTED,
    busy=Reason.VAULT_BUSY,
    redirects=Reason.VAULT_REDIRECTS,
    answer=Reason.VAULT_ANSWER,
    answer_too_large=Reason.VAULT_ANSWER_TOO_LARGE,
    # Standby nodes: 307 while they cannot forward to the active one, whose address is not followed all the same; 412
    # before they have caught up with what the token needs (developer.hashicorp.com/vault, "Eventual consistency").
    try_another=frozenset({307, 412}),
)


class Answer(NamedTuple):
    """An answer that is neither busy nor a redirect."""

    status: int
    body: bytes

    def __repr__(self) -> str:  # without the body, which may hold a secret
        return f"Answer(status={self.status})"


def json_object(body: bytes) -> dict[str, Any]:
    """The body's JSON object; an empty one for anything else."""
    try:
        found = json.loads(body.decode())
    except (ValueError, RecursionError):
        found = None
    return found if isinstance(found, dict) else {}


class Client:
    """One connection to one party, opened when first needed and again when it is gone.

    `vet`: gets the certificate (DER) that a new connection's handshake showed, before anything is sent on it, and
    raises to refuse the connection; None trusts every connection that the CA vouches for.
    """

    def __init__(
        self, party: Party, url: str, ca: str, *, limit: int, vet: Callable[[bytes], None] | None = None
    ) -> None:
        self.party = party
        self._vet = vet
        self._host, self._port, self._prefix = _parse(party, url)
        self._ca, self._whose = ca, "the plan's"
        self._limit = limit
        self._context: ssl.SSLContext | None = None
        self._connection: HttpConnection | None = None
        self._is_usable = False
        self.clock_ahead: float | None = None
        """Seconds by which this clock is ahead of the party's, by its last answer's Date; None without one."""

    def call(
        self,
        deadline: Deadline,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        meanwhile: Callable[[], None] | None = None,
    ) -> Answer:
        """One request and its answer. Raises SidecarError; `retryable` where a later call may succeed.

        `meanwhile`: work that can be done while the other side makes its answer.
        """
        attempt = Deadline(min(deadline.remaining(), ATTEMPT_SECONDS))
        self._is_usable = False
        try:
            connection = self._connected(attempt)
            fields = [*(headers or {}).items()]
            if body is not None:
                fields.append(("Content-Type", "application/json"))
            connection.send(method, self._prefix + path, fields, body)
            if meanwhile is not None:
                meanwhile()
            return self._read(connection)
        except SidecarError:
            if not self._is_usable:
                self.close()
            raise
        except BaseException as error:
            self.close()
            raise self._translated(error) from None

    def connect(self, deadline: Deadline) -> None:
        """Open the connection without a request, unless there is one. Raises SidecarError as `call` does."""
        try:
            self._connected(Deadline(min(deadline.remaining(), ATTEMPT_SECONDS)))
        except BaseException as error:
            self.close()
            raise self._translated(error) from None

    def close(self) -> None:
        """Close the connection; the next call opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connected(self, attempt: Deadline) -> HttpConnection:
        if self._connection is None:
            if self._context is None:
                self._context = self._trusting(self._ca, self._whose)
            secured = self._handshake(self._context, attempt)
            self._connection = HttpConnection(secured, host_field(self._host, self._port, 443), attempt)
        self._connection.deadline = attempt
        return self._connection

    def _handshake(self, context: ssl.SSLContext, attempt: Deadline) -> ssl.SSLSocket:
        plain = open_connection(self._host, self._port, attempt)
        try:
            plain.settimeout(attempt.timeout())
            secured = context.wrap_socket(plain, server_hostname=tls_name(self._host))
        except BaseException:
            plain.close()
            raise
        if self._vet is not None:
            try:
                self._vet(secured.getpeercert(binary_form=True) or b"")
            except BaseException:
                secured.close()
                raise
        return secured

    def trust(self, ca: str, whose: str) -> None:
        """Trust this CA in place of the plan's, from the next connection on. Raises SidecarError, and changes nothing.

        `whose` says where it is from, for people: "the verifier's".
        """
        context = self._trusting(ca, whose)
        self.close()
        self._ca, self._context, self._whose = ca, context, whose

    def trust_as(self, other: Client) -> None:
        """Trust the CA that another client of the same party trusts, from the next connection on."""
        self.close()
        self._ca, self._context, self._whose = other._ca, other._context, other._whose

    def _trusting(self, ca: str, whose: str) -> ssl.SSLContext:
        try:
            context = trusting(ca)
        except ValueError as error:
            raise SidecarError(self.party.ca, f"{whose} CA for {self.party.name} {error}") from None
        if self._vet is not None:
            # A connection shows one certificate for its whole life: no renegotiation, which TLS 1.3 does not have.
            context.minimum_version = ssl.TLSVersion.TLSv1_3
        return context

    def _read(self, connection: HttpConnection) -> Answer:
        head = connection.receive_head()
        self._compare_clocks(head.fields.get("date"))
        status = head.status
        if 300 <= status < 400 and status not in self.party.try_another:
            raise SidecarError(
                self.party.redirects,
                f"{self.party.name} answers HTTP {status} ; a redirect is never followed",
            )
        try:
            body = connection.receive_body(head, self._limit)
        except TooLargeError:
            raise SidecarError(
                self.party.answer_too_large,
                f"{self.party.name} answers with more than {self._limit} bytes",
            ) from None
        if status in _BUSY | self.party.try_another:
            explain = self.party.explain
            busy = Busy(self.party.busy, _CANNOT_NOW) if explain is None else explain(body)
            self._is_usable = self.party.stays and connection.is_ready
            raise SidecarError(
                busy.reason,
                f"{self.party.name} {busy.words} (HTTP {status})",
                correlation_id=busy.correlation_id,
                retryable=True,
                retry_after=_retry_after(head.fields.get("retry-after")),
            )
        if not connection.is_ready:
            self.close()
        return Answer(status, body)

    def _compare_clocks(self, date: str | None) -> None:
        seconds = None if date is None else seconds_since_1970(date)
        self.clock_ahead = None if seconds is None else time.time() - seconds

    def _translated(self, error: BaseException) -> BaseException:
        where = f"{self.party.name} at {self._host}:{self._port}"
        if isinstance(error, SidecarError):
            return error
        if isinstance(error, ssl.SSLCertVerificationError):
            now = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
            return SidecarError(
                self.party.not_trusted,
                f"{where} has a certificate that {self._whose} CA does not vouch for: {error.verify_message}"
                f" (this guest's clock says {now})",
            )
        if isinstance(error, NameTimeoutError):
            words = "its name was not resolved in time"
        elif isinstance(error, TimeoutError):
            words = "no answer in time"
        elif isinstance(error, (socket.gaierror, UnicodeError)):
            words = "its name is not known"
        elif isinstance(error, ssl.SSLError):
            words = "TLS failed"
        elif isinstance(error, HttpError):
            words = str(error)
        elif isinstance(error, OSError):
            words = type(error).__name__
        else:
            return error
        return SidecarError(self.party.unreachable, f"cannot reach {where}: {words}", retryable=True)


def _parse(party: Party, url: str) -> tuple[str, int, str]:
    try:
        return https_parts(url)
    except ValueError:
        raise SidecarError(party.url, f"the plan's URL of {party.name} is not of the form {FORM}") from None


def _retry_after(value: str | None) -> float | None:
    """Seconds of RFC 9110, 10.2.3, in either form."""
    if value is None:
        return None
    if value.isascii() and value.isdigit():
        return float(value[:9])
    seconds = seconds_since_1970(value)
    return None if seconds is None else max(0.0, seconds - time.time())
