"""A sealed replica's way to the secrets: it attests a peer first, then itself, on one connection.

Its own evidence and the wait for the peer take threads; the rest of the process goes on meanwhile.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from attestation.appraisal.appraise_verifier import VerifierResult, appraise_verifier
from attestation.evidence import EvidenceError, coco_document
from attestation.pki.crl import RevocationList
from attestation.verifier.provisioning.held_secrets import HeldSecrets, ProvisionRefusedError
from attestation.verifier.provisioning.own_guest import OwnGuest
from attestation.verifier.provisioning.replica_references import Replicas
from attestation.verifier.reasons import RefusedError
from kbs.attested import ATTESTED_PATH, MAX_ATTESTED_ANSWER_SIZE, NONCE_SIZE
from kbs.attested_connection import Address, Connection, UnreachableError, addresses_of
from kbs.attested_guest import AttestedAnswer, read_attested_answer, write_attested
from kbs.ephemeral_key import EphemeralKey
from kbs.guest import open_sealed, read_attest_answer, read_auth_answer, write_attest, write_auth
from kbs.hand_over import PROVISIONED_PATH, PROVISIONED_ROLE, read_secrets, write_replica_evidence
from kbs.messages import ATTEST_PATH, AUTH_PATH, MAX_ANSWER_SIZE, WireError, binding
from kbs.provision import PROVISION_PATH, Outcome, SecretName, read_provision_state
from server import logs

_SECONDS: Final = 15.0  # a thread that a stopping process waits for
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 10.0


class _NotTakenError(Exception):
    """Nothing came of one peer: one line."""


class TakeOver:
    """Asks the peers while `run` runs, until nothing is missing that they could have. `peers`: URLs."""

    def __init__(self, peers: Sequence[str], own: OwnGuest, held: HeldSecrets) -> None:
        self._peers = tuple(peers)
        self._own = own
        self._held = held
        self._said: dict[str, str] = {}

    async def run(self) -> None:
        """Returns when every secret has come, from here or from people."""
        pause = _FIRST_PAUSE
        while self._held.missing:
            for url in self._peers:
                await self._try(url)
            if self._held.missing:
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311  (only to spread requests)
                pause = min(pause * 2, _LONGEST_PAUSE)

    async def _try(self, url: str) -> None:
        try:
            addresses = await asyncio.to_thread(addresses_of, url)
        except (UnreachableError, ValueError) as error:
            self._say(url, str(error))
            return
        for address in addresses:
            if not self._held.missing:
                return
            try:
                values = await self._ask(address)
                outcomes = self._held.take(values, skip_unneeded=True)
            except (_NotTakenError, RefusedError, ProvisionRefusedError) as error:
                self._say(str(address), str(error))
                continue
            if Outcome.TAKEN in outcomes.values():  # people may have been faster
                named = {name.value: outcome.value for name, outcome in outcomes.items()}
                logs.info("taken_over", peer=str(address), outcomes=named)

    async def _ask(self, address: Address) -> Mapping[SecretName, str]:
        replicas, crls = await self._own.replicas()
        if not crls:
            raise _NotTakenError("no revocation list of this product line has come yet")
        try:
            return await asyncio.to_thread(self._exchange, address, replicas, crls)
        except (UnreachableError, WireError, EvidenceError) as error:
            raise _NotTakenError(str(error)) from None

    def _exchange(
        self, address: Address, replicas: Replicas, crls: Sequence[RevocationList]
    ) -> Mapping[SecretName, str]:
        with Connection(address, "", _SECONDS) as connection:
            # Nothing is trusted yet; it only spares both sides the rest.
            if read_provision_state(_answer(connection, "GET", PROVISION_PATH, b"")).sealed:
                raise _NotTakenError("it is sealed too")
            self._attest_peer(connection, replicas, crls)
            key = EphemeralKey()
            nonce = read_auth_answer(_answer(connection, "POST", AUTH_PATH, write_auth()))
            additional = write_replica_evidence(self._own.configuration)
            found = self._own.collect(binding(nonce, key.public, additional))
            body = write_attest(nonce, key.public, coco_document(found), additional)
            bearer = read_attest_answer(_answer(connection, "POST", ATTEST_PATH, body))
            sealed = _answer(connection, "GET", PROVISIONED_PATH, b"", {"Authorization": f"Bearer {bearer}"})
            return _named(read_secrets(open_sealed(sealed, key, nonce, PROVISIONED_ROLE)))

    def _attest_peer(self, connection: Connection, replicas: Replicas, crls: Sequence[RevocationList]) -> None:
        nonce = secrets.token_bytes(NONCE_SIZE)
        body = _answer(connection, "POST", ATTESTED_PATH, write_attested(nonce), limit=MAX_ATTESTED_ANSWER_SIZE)
        answer = read_attested_answer(body)
        results = _results(answer, nonce, connection.spki, replicas, crls)
        if not any(result.accepted for result in results):
            failed = [check.id for result in results for check in result.failed]
            told = ", ".join(dict.fromkeys(failed)) or "this guest has no initdata, and no signer is configured"
            raise _NotTakenError(f"it is not a replica: {told}")

    def _say(self, peer: str, problem: str) -> None:
        if self._said.get(peer) != problem:  # one line per fault, not per try
            self._said[peer] = problem
            logs.warning("not_taken_over", peer=peer, detail=problem)


def _results(
    answer: AttestedAnswer, nonce: bytes, spki: bytes, replicas: Replicas, crls: Sequence[RevocationList]
) -> list[VerifierResult]:
    now = datetime.now(UTC)
    return [
        appraise_verifier(answer, nonce, spki, demand, now, crls=crls, trusts_clock=True)
        for demand in replicas.demands()
    ]


def _answer(
    connection: Connection,
    method: str,
    path: str,
    body: bytes,
    headers: Mapping[str, str] | None = None,
    *,
    limit: int = MAX_ANSWER_SIZE,
) -> bytes:
    answer = connection.request(method, path, body, limit=limit, headers=headers or {})
    if answer.status != 200:
        raise _NotTakenError(f"it answers {answer.status} to {path}")
    return answer.body


def _named(values: Mapping[str, str]) -> Mapping[SecretName, str]:
    known = {name.value: name for name in SecretName}
    if not values.keys() <= known.keys():
        raise WireError("content names a secret that this version does not know")
    return {known[name]: text for name, text in values.items()}
