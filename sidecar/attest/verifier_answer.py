"""The verifier's answer, appraised by the verifier's own code, and why it is refused: one reason and one line."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from attestation.appraisal.appraise_verifier import (
    CONFIGURATION,
    REPORT_DATA,
    SERIAL,
    SIGNATURE,
    VerifierResult,
    appraise_verifier,
)
from kbs.attested_guest import read_attested_answer
from kbs.messages import WireError
from kbs.verifier_attest import VerifierAttest
from sidecar.errors import SidecarError
from sidecar.http import Answer
from sidecar.reasons import Reason

# A check's line can list many digests; a termination message has 4,096 bytes.
_MOST_TEXT: Final = 600


def appraised(answer: Answer, nonce: bytes, spki: bytes, attest: VerifierAttest) -> VerifierResult:
    """The accepted result. Raises SidecarError for every other one. `spki`: of the key that the handshake showed."""
    if answer.status != 200:
        raise SidecarError(
            Reason.VERIFIER_NO_EVIDENCE,
            f"the verifier does not prove itself (HTTP {answer.status}), and the plan demands it",
        )
    try:
        read = read_attested_answer(answer.body)
    except WireError as error:
        raise SidecarError(
            Reason.VERIFIER_NOT_ATTESTED, f"the server at the verifier's URL does not prove anything: {error}"
        ) from None
    result = appraise_verifier(read, nonce, spki, attest, datetime.now(UTC))
    if not result.accepted:
        raise _refused(result)
    return result


def _refused(result: VerifierResult) -> SidecarError:
    """Which check failed, in one line; the values in it are digests and versions, nothing secret."""
    failed = result.failed
    names = [check.id for check in failed]
    if set(names) & {SIGNATURE, SERIAL}:
        reason, words = Reason.VERIFIER_REFERENCES, "its signed reference values do not count"
    elif CONFIGURATION in names:
        reason, words = Reason.VERIFIER_CONFIGURATION, "it runs with a configuration that is not listed"
    elif names == [REPORT_DATA]:
        # The two values say nothing to people: both are digests of the whole statement.
        return SidecarError(
            Reason.VERIFIER_SPKI,
            "the verifier was told nothing: its report does not bind this connection's TLS key, so something on the way"
            f" ends TLS, such as a balancer; {REPORT_DATA} failed",
        )
    else:
        reason, words = Reason.VERIFIER_NOT_ATTESTED, "it is not the verifier that the plan demands"
    first = failed[0].line() if failed else "nothing was evaluated"
    more = f"; also {', '.join(names[1:])}" if len(names) > 1 else ""
    text = f"the verifier was told nothing: {words}; {first[:_MOST_TEXT]}{more[:_MOST_TEXT]}"
    return SidecarError(reason, text)
