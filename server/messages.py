"""The request that a handler gets and the response that it returns, free of any HTTP library."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final, NamedTuple

_NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})


class RequestInfo(NamedTuple):
    """One request without its body.

    `path`: as sent, neither decoded nor with the query.
    `query`: the raw text after `?`.
    `tail`: the last segment of the path, decoded, when the route ends in `/*`; else empty.
    `headers`: by name, in any case.
    `deadline`: the event loop's time, in seconds, at which the server gives up on the request.
    `peer`: the address of the connection's other end, without the port. Behind a proxy it is the proxy's.
    `is_connected`: whether the caller still waits, as far as this machine knows at the moment of the question.
    `spki`: SHA-256 of the public key (SubjectPublicKeyInfo, DER) of the certificate that this connection showed; empty
    without TLS.
    """

    method: str
    path: str
    query: str
    tail: str
    headers: Mapping[str, str]
    deadline: float
    peer: str
    is_connected: Callable[[], bool] = lambda: True
    spki: bytes = b""


class Response(NamedTuple):
    """An answer: HTTP status, body, content type and any further headers."""

    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"
    headers: Mapping[str, str] = _NO_HEADERS


class Refusal(StrEnum):
    """Why the server answers in place of a handler. The value is the metric's label; `status` is the HTTP status."""

    NOT_FOUND = "not_found"
    METHOD = "method"
    MALFORMED = "malformed"
    ENCODING = "encoding"
    TOO_LARGE = "too_large"
    OVERLOADED = "overloaded"
    BODY_TIMEOUT = "body_timeout"
    DEADLINE = "deadline"
    FAILED = "failed"

    @property
    def status(self) -> int:
        return _STATUS[self]


_STATUS = {
    Refusal.MALFORMED: 400,
    Refusal.NOT_FOUND: 404,
    Refusal.METHOD: 405,
    Refusal.BODY_TIMEOUT: 408,
    Refusal.TOO_LARGE: 413,
    Refusal.ENCODING: 415,
    Refusal.OVERLOADED: 429,
    Refusal.FAILED: 500,
    Refusal.DEADLINE: 504,
}

Handler = Callable[[bytes, RequestInfo], Awaitable[Response]]


def _no_answer(_info: RequestInfo) -> Response | None:
    return None


def _not_vouched(_info: RequestInfo) -> bool:
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Intake:
    """The conditions of a path, which hold before the server reads a body.

    `body_bytes`: the largest body, where it is less than the server's.
    `vouched_body_bytes`: the same for a request that `is_vouched` and says its body's length.
    `screen`: answers a request in place of the handler; None lets it pass.
    `is_vouched`: whether the headers show that the request may use the reserves. It must be cheap.
    """

    body_bytes: int | None = None
    vouched_body_bytes: int | None = None
    screen: Callable[[RequestInfo], Response | None] = _no_answer
    is_vouched: Callable[[RequestInfo], bool] = _not_vouched


NO_INTAKE: Final = Intake()
Refuse = Callable[[Refusal, RequestInfo], Response]


def refuse(refusal: Refusal, info: RequestInfo) -> Response:
    """The default answer to a refusal: its reason as plain text. It repeats nothing of the request."""
    headers = {"Retry-After": "1"} if refusal is Refusal.OVERLOADED else {}
    return Response(refusal.status, f"{refusal.value}\n".encode(), "text/plain", headers)
