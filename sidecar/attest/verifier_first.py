"""The verifier proves itself first, where the plan has `verifier.attest`; before, nothing about this pod leaves it.

Apart from the handshake, because it brings imports along, which other cold starts do without.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from kbs.attested import ATTESTED_PATH, NONCE_SIZE
from kbs.attested_guest import write_attested
from kbs.base64url import encode
from kbs.verifier_attest import VerifierAttest
from sidecar.deadline import Deadline
from sidecar.errors import SidecarError, UnattestedKeyError
from sidecar.http import Client
from sidecar.log import Events
from sidecar.reasons import Reason

if TYPE_CHECKING:
    from attestation.appraisal.appraise_verifier import VerifierResult


class VerifierGate:
    """Opens the way to those of the verifier's TLS keys that it has proven, and to no others.

    `vet` stands at every connection of the client that is given to `attest`.
    """

    def __init__(self, attest: VerifierAttest, events: Events) -> None:
        self._attest = attest
        self._events = events
        self._proven: set[bytes] = set()
        self._shown = b""  # the certificate of the newest connection, DER
        self._is_asking = False

    def close(self) -> None:
        """Forget every key: the next attestation asks anew."""
        self._proven.clear()

    def vet(self, certificate: bytes) -> None:
        """Look at a new connection's certificate (DER). Raises SidecarError for a key that is not proven.

        While the verifier is asked for its proof, nothing but a nonce is sent, and `attest` looks at the key.
        """
        self._shown = certificate
        if not self._is_asking and not self._is_proven():
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
                if self._is_proven():
                    return None
                nonce = os.urandom(NONCE_SIZE)
                answer = client.call(deadline, "POST", ATTESTED_PATH, write_attested(nonce), meanwhile=_load_appraisal)
        finally:
            self._is_asking = False
        from sidecar.attest.verifier_answer import appraised  # here: see _load_appraisal

        spki = _spki(self._shown)
        result = appraised(answer, nonce, spki, self._attest)
        self._proven.add(spki)
        self._events.info(
            "verifier_attested",
            guest=result.guest,
            simulated=result.simulated,
            serial=result.serial,
            configuration=encode(result.configuration),
            policies=encode(result.policies),
        )
        return result

    def _is_proven(self) -> bool:
        # Most runs get here with nothing proven yet, and read the certificate while the verifier makes its report.
        return bool(self._proven) and _spki(self._shown) in self._proven


def _spki(certificate: bytes) -> bytes:
    from kbs.spki import spki_digest  # here: see _load_appraisal

    try:
        return spki_digest(certificate)
    except ValueError as error:
        raise SidecarError(Reason.VERIFIER_NOT_ATTESTED, f"the verifier shows {error}") from None


def _load_appraisal() -> None:
    """Import what the answer is appraised with, which takes about as long as the verifier's firmware needs."""
    from kbs import spki  # noqa: F401
    from sidecar.attest import verifier_answer  # noqa: F401
