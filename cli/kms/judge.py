"""Which verifier answers: its answer to a nonce is appraised by what a policy file says, as a guest does it."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from attestation.appraisal.appraise_verifier import VerifierResult, appraise_verifier
from attestation.appraisal.result import CheckResult
from attestation.pki.crl import RevocationList
from kbs.attested import ATTESTED_PATH, MAX_ATTESTED_ANSWER_SIZE, NONCE_SIZE
from kbs.attested_connection import Connection, UnreachableError
from kbs.attested_guest import read_attested_answer, write_attested
from kbs.base64url import encode
from kbs.messages import WireError
from kbs.verifier_attest import VerifierAttest
from server.verifier_attest import AttestFile
from server.yaml.strict import load

CONFIGURATION, POLICIES = "verifier/configuration", "verifier/policies"


class NotAttestedError(Exception):
    """The other end answered, and it is no verifier that attests itself: one line."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What a verifier is compared with. `configuration`, `policies`: digests that it must report; None: any."""

    attest: VerifierAttest
    crls: tuple[RevocationList, ...] = ()
    configuration: bytes | None = None
    policies: bytes | None = None


@dataclass(frozen=True, slots=True)
class Judgement:
    """The result on one connection, with the caller's own check of the policies."""

    result: VerifierResult
    checks: tuple[CheckResult, ...]

    @property
    def accepted(self) -> bool:
        """Whether every check holds."""
        return self.result.accepted and all(check.ok is True for check in self.checks)

    def summary(self) -> str:
        """One line for people."""
        result = self.result
        failed = [check.id for check in self.checks if check.ok is not True]
        parts = ["attested" if self.accepted else "refused"]
        parts += [f"guest {result.guest}"] if result.guest else []
        parts += [f"serial {result.serial}"] if result.serial is not None else []
        parts += ["simulated: nothing here is real hardware"] if result.simulated else []
        parts += [f"failed: {', '.join(failed)}"] if failed else []
        return " · ".join(parts)

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        result = self.result
        return {
            "attested": self.accepted,
            "simulated": result.simulated,
            "guest": result.guest,
            "serial": result.serial,
            "configuration": encode(result.configuration),
            "policies": encode(result.policies),
            "checks": [each.as_dict() for each in self.checks],
        }


def read_demand(policy: Path) -> VerifierAttest:
    """The policy of a file: `verifier.attest`, as the webhook's configuration has it. Raises ConfigurationError."""
    return load(policy, AttestFile).value.root.plain()


def judge(connection: Connection, demand: Demand) -> Judgement:
    """Attest the other end of this connection. Raises UnreachableError, NotAttestedError."""
    nonce = secrets.token_bytes(NONCE_SIZE)
    answer = connection.request("POST", ATTESTED_PATH, write_attested(nonce), limit=MAX_ATTESTED_ANSWER_SIZE)
    if answer.status in (404, 405):
        raise NotAttestedError("it answers 404: it is no verifier that attests itself")
    if answer.status != 200:
        raise UnreachableError(f"it answers {answer.status}: it cannot attest itself at the moment; try again")
    try:
        read = read_attested_answer(answer.body)
    except WireError as error:
        raise NotAttestedError(f"its answer cannot be read: {error}") from None
    result = appraise_verifier(
        read, nonce, connection.spki, demand.attest, datetime.now(UTC), crls=demand.crls, trusts_clock=True
    )
    return Judgement(result, (*result.checks, *_own_checks(result, demand)))


def _own_checks(result: VerifierResult, demand: Demand) -> Iterator[CheckResult]:
    """Whether the verifier runs with the operator's own files. A guest has none to compare it with."""
    for name, reported, wanted in (
        (CONFIGURATION, result.configuration, demand.configuration),
        (POLICIES, result.policies, demand.policies),
    ):
        if wanted is not None:
            yield CheckResult(
                name, reported == wanted, f"digest {encode(reported)}", f"{encode(wanted)}, of your files"
            )
