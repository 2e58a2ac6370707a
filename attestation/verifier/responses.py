"""The verifier's answers other than success. To a guest, all refusals of evidence look the same."""

from __future__ import annotations

import secrets
from collections.abc import Mapping

from attestation.verifier.reasons import Reason
from kbs.messages import ErrorType, WireError
from kbs.verifier import write_error
from server import logs
from server.messages import Refusal, RequestInfo, Response

_RETRY_AFTER_SECONDS = 2
_CAUSES: Mapping[Reason, ErrorType] = {
    Reason.SEALED: ErrorType.SEALED,
    Reason.NO_EVIDENCE: ErrorType.EVIDENCE,
    Reason.CLOCK: ErrorType.CLOCK,
    Reason.VAULT_SEALED: ErrorType.VAULT_SEALED,
    Reason.VAULT_SLOW: ErrorType.VAULT,
    Reason.VAULT_UNREACHABLE: ErrorType.VAULT,
    Reason.VAULT_BEHIND: ErrorType.VAULT,
    Reason.VAULT_LIMITED: ErrorType.VAULT,
    Reason.VAULT_ERROR: ErrorType.VAULT,
    Reason.VAULT_CREDENTIALS: ErrorType.VAULT,
    Reason.VAULT_STRANGE: ErrorType.VAULT,
    Reason.KEYS_UNAVAILABLE: ErrorType.CLUSTER,
    Reason.POD_UNAVAILABLE: ErrorType.CLUSTER,
    Reason.CERTIFICATES_UNAVAILABLE: ErrorType.CERTIFICATES,
}


def new_correlation_id() -> str:
    """16 hexadecimal digits that tie a guest's answer to the operator's records."""
    return secrets.token_hex(8)


def refuse(refusal: Refusal, _info: RequestInfo) -> Response:
    """The server's own refusals, in KBS's shape."""
    if refusal in (Refusal.OVERLOADED, Refusal.DEADLINE, Refusal.FAILED):
        return unavailable(new_correlation_id(), refusal.status)
    return Response(refusal.status, write_error(ErrorType.INVALID, new_correlation_id()))


def invalid(call: str, error: WireError) -> Response:
    """400 for a message that is not of this protocol; logged."""
    identifier = new_correlation_id()
    logs.set_correlation_id(identifier)
    logs.warning("invalid_request", call=call, problem=str(error))
    return Response(400, write_error(ErrorType.INVALID, identifier))


def refused(reason: Reason, identifier: str) -> Response:
    """503 for a reason that may pass, with the party it lies with; 401 for every other, which all look the same."""
    if reason.is_session:
        body = write_error(ErrorType.SESSION, identifier)
        return Response(503, body, headers={"Retry-After": "0"}) if reason.is_retryable else Response(401, body)
    if reason.is_retryable:
        return unavailable(identifier, 503, _CAUSES.get(reason, ErrorType.UNAVAILABLE))
    return Response(401, write_error(ErrorType.REFUSED, identifier))


def unavailable(identifier: str, status: int, problem: ErrorType = ErrorType.UNAVAILABLE) -> Response:
    """The request may succeed later."""
    headers = {"Retry-After": str(_RETRY_AFTER_SECONDS)}
    return Response(status, write_error(problem, identifier), headers=headers)
