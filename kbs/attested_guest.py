"""The guest's half of `/attested`: writes the request, reads the answer. Only some cold starts import it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from kbs.attested import (
    DIGEST_SIZE,
    MAX_ATTESTED_ANSWER_SIZE,
    MAX_LEVELS,
    MAX_REFERENCES_SIZE,
    NONCE_SIZE,
    Side,
    Step,
    climb,
    statement_digest,
)
from kbs.base64url import decode, encode
from kbs.messages import WireError, read_json, require_object, write_json


class AttestedAnswer(NamedTuple):
    """The verifier's answer: shapes are checked, nothing in it is trusted yet.

    `evidence`: as `attestation.report.coco.parse_coco_evidence` reads it. `policies`, `configuration`: 32 bytes.
    `references`: compact JWS for `kbs.references.read_references`; empty where the verifier has none.
    """

    evidence: Mapping[str, Any]
    path: tuple[Step, ...]
    policies: bytes
    configuration: bytes
    references: str

    def __repr__(self) -> str:  # without evidence and references, which are long
        return f"AttestedAnswer(policies={self.policies.hex()}, configuration={self.configuration.hex()})"

    def digest(self, nonce: bytes, spki: bytes) -> bytes:
        """What the report's REPORT_DATA must bind. `nonce`: the 32 bytes sent. `spki`: as the handshake showed it."""
        return statement_digest(
            nonce=climb(nonce, self.path), spki=spki, policies=self.policies, configuration=self.configuration
        )


def write_attested(nonce: bytes) -> bytes:
    """The request's body. Raises ValueError unless the nonce has 32 bytes."""
    if len(nonce) != NONCE_SIZE:
        raise ValueError(f"nonce has {len(nonce)} bytes, required {NONCE_SIZE}")
    return write_json({"nonce": encode(nonce)})


def read_attested_answer(body: bytes) -> AttestedAnswer:
    """The answer to `write_attested`. Raises WireError."""
    document = read_json(body, MAX_ATTESTED_ANSWER_SIZE, "answer")
    path = document.get("path")
    if not isinstance(path, list) or len(path) > MAX_LEVELS:
        raise WireError(f"path is not a list of at most {MAX_LEVELS} steps")
    references = document.get("references", "")
    if not isinstance(references, str) or not references.isascii() or len(references) > MAX_REFERENCES_SIZE:
        raise WireError(f"references is not text of at most {MAX_REFERENCES_SIZE} characters")
    return AttestedAnswer(
        evidence=require_object(document.get("evidence"), "evidence"),
        path=tuple(_step(each, f"path[{number}]") for number, each in enumerate(path)),
        policies=_digest(document, "policies", "policies"),
        configuration=_digest(document, "configuration", "configuration"),
        references=references,
    )


def _step(value: object, where: str) -> Step:
    step = require_object(value, where)
    side = step.get("side")
    if step.keys() != {"side", "hash"} or side not in tuple(Side):
        raise WireError(f"{where} is not a side, left or right, and a hash")
    return Step(Side(side), _digest(step, "hash", f"{where}.hash"))


def _digest(source: Mapping[str, Any], name: str, where: str) -> bytes:
    try:
        return decode(source.get(name), DIGEST_SIZE)
    except ValueError as error:
        raise WireError(f"{where}: {error}") from None
