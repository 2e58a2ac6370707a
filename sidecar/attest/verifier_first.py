"""The verifier proves itself first, where the plan has `verifier.attest`; before, nothing about this pod leaves it.

Apart from the handshake, because it brings all of appraisal along, which other cold starts do without.
"""

from __future__ import annotations

import os
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
from kbs.attested import ATTESTED_PATH, NONCE_SIZE, encode
from kbs.attested_guest import read_attested_answer, write_attested
from kbs.messages import WireError
from kbs.spki import spki_digest
from kbs.verifier_attest import VerifierAttest
from sidecar.deadline import Deadline
from sidecar.errors import SidecarError, UnattestedKeyError
from sidecar.http import Client
from sidecar.log import Events
from sidecar.reasons import Reason

# A check's line can list many digests; a termination message has 4,096 bytes.
_MOST_TEXT: Final = 600


class VerifierGate:
    """Opens the way to those of the verifier's TLS keys that it has proven, and to no others.

    `vet` stands at every connection of the client that is given to `attest`.
    """

    def __init__(self, attest: VerifierAttest, events: Events) -> None:
        self._attest = attest
        self._events = events
        self._proven: set[bytes] = set()
        self._shown = b""
        self._is_asking = False

    def close(self) -> None:
        """Forget every key: the next attestation asks anew."""
        self._proven.clear()

    def vet(self, certificate: bytes) -> None:
        """Look at a new connection's certificate (DER). Raises SidecarError for a key that is not proven."""
        try:
            self._shown = spki_digest(certificate)
        except ValueError as error:
            raise SidecarError(Reason.VERIFIER_NOT_ATTESTED, f"the verifier shows {error}") from None
        if not self._is_asking and self._shown not in self._proven:
            raise UnattestedKeyError

    def attest(self, client: Client, deadline: Deadline) -> VerifierResult | None:
        """Open a new connection whose key is proven, if need be by asking on it; None where it was already.

        Raises SidecarError; `retryable` where the verifier cannot answer now.
        """
        client.close()
        self._is_asking = True
        try:
            with deadline.shutdown.interruptible():
                client.connect(deadline)
                if self._shown in self._proven:
                    return None
                nonce = os.urandom(NONCE_SIZE)
                answer = client.call(deadline, "POST", ATTESTED_PATH, write_attested(nonce))
        finally:
            self._is_asking = False
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
        result = appraise_verifier(read, nonce, self._shown, self._attest, datetime.now(UTC))
        if not result.accepted:
            raise _refused(result)
        self._proven.add(self._shown)
        self._events.info(
            "verifier_attested",
            guest=result.guest,
            simulated=result.simulated,
            serial=result.serial,
            configuration=encode(result.configuration),
            policies=encode(result.policies),
        )
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
        reason = Reason.VERIFIER_SPKI
        words = "its report binds another key than this connection's: something on the way ends TLS"
    else:
        reason, words = Reason.VERIFIER_NOT_ATTESTED, "it is not the verifier that the plan demands"
    first = failed[0].line() if failed else "nothing was evaluated"
    more = f"; also {', '.join(names[1:])}" if len(names) > 1 else ""
    text = f"the verifier was told nothing: {words}; {first[:_MOST_TEXT]}{more[:_MOST_TEXT]}"
    return SidecarError(reason, text)
