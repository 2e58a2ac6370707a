"""The guest's half of the KBS messages: writes the requests, reads the answers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from kbs.ephemeral_key import EphemeralKey
from kbs.messages import (
    DEFAULT_ROLE,
    ERROR_BASE,
    HASH,
    JWE_PARTS,
    MAX_ANSWER_SIZE,
    NONCE_PATTERN,
    PROTOCOL,
    TEE,
    TOKEN_KEY,
    TOKEN_PATH,
    ErrorType,
    VaultToken,
    WireError,
    read_json,
    require_text,
    write_json,
)

_ROLE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_CORRELATION_ID = re.compile(r"[0-9a-f]{16}")


class ErrorAnswer(NamedTuple):
    """A refusal as the guest reads it; `correlation_id` is empty when the answer had none."""

    problem: str
    correlation_id: str


def write_auth() -> bytes:
    """Body of the first call."""
    return write_json({"version": PROTOCOL, "tee": TEE, "extra-params": {"supported-hash-algorithms": [HASH]}})


def read_auth_answer(body: bytes) -> str:
    """The nonce. Raises WireError."""
    document = _read(body)
    extra = document.get("extra-params")
    if isinstance(extra, dict) and extra.get("selected-hash-algorithm", HASH) != HASH:
        raise WireError(f"selected-hash-algorithm is not {HASH}")
    return require_text(document, "nonce", NONCE_PATTERN)


def write_additional_evidence(pod_token: str) -> str:
    """The `additional_evidence` member: JSON text with the pod's service-account token."""
    return write_json({TOKEN_KEY: pod_token}).decode()


def write_attest(
    nonce: str, tee_pubkey: Mapping[str, str], primary_evidence: Mapping[str, Any], additional_evidence: str
) -> bytes:
    """Body of the second call. `primary_evidence`: see `attestation.evidence.coco_document`."""
    return write_json(
        {
            "runtime-data": {"nonce": nonce, "tee-pubkey": dict(tee_pubkey)},
            "tee-evidence": {"primary_evidence": primary_evidence, "additional_evidence": additional_evidence},
        }
    )


def read_attest_answer(body: bytes) -> str:
    """The bearer token of the third call. Raises WireError."""
    token = _read(body).get("token")
    if not isinstance(token, str) or not token.isascii() or not token.isprintable():
        raise WireError("token is missing")
    return token


def read_correlation_id(body: bytes) -> str:
    """The id under which the verifier records the attestation of this second answer; empty when it sends none."""
    return _correlation_id(_read(body))


def is_role(text: str) -> bool:
    """The text can be a role name."""
    return _ROLE.fullmatch(text) is not None


def token_path(role: str = DEFAULT_ROLE) -> str:
    """Path of the third call. Raises WireError for text that cannot be a role name."""
    if not is_role(role):
        raise WireError("role is not a name of 1 to 63 letters, digits, . _ -, such as payments")
    return f"{TOKEN_PATH}/{role}"


def open_token(body: bytes, key: EphemeralKey, nonce: str, role: str = DEFAULT_ROLE) -> VaultToken:
    """The Vault token, if it was made for this key, this nonce and this role. Raises WireError."""
    return _vault_token(open_sealed(body, key, nonce, role))


def read_delivered_token(body: bytes) -> VaultToken:
    """The Vault token that the guest's own data hub has fetched and decrypted. Raises WireError."""
    return _vault_token(_read(body))


def _vault_token(content: Mapping[str, Any]) -> VaultToken:
    try:
        result = VaultToken(**content)
    except TypeError:
        raise WireError("content has other members than a Vault token has") from None
    fields = (result.token, result.assurance, result.vault_ca, result.lease_seconds, result.renewable, result.simulated)
    if list(map(type, fields)) != [str, str, str, int, bool, bool]:
        raise WireError("content is not a Vault token")
    return result


def open_sealed(body: bytes, key: EphemeralKey, nonce: str, role: str) -> dict[str, Any]:
    """The object in the third answer, if it was made for this key, this nonce and this role. Raises WireError."""
    document = _read(body)
    parts = [document.get(name) for name in JWE_PARTS]
    if not all(isinstance(part, str) for part in parts):
        raise WireError("answer is not a flattened JWE")
    header, plaintext = key.decrypt(*map(str, parts))
    # Another attestation's answer, or another role's, must not pass for this one.
    if header.get("nonce") != nonce or header.get("role") != role:
        raise WireError("answer is for another nonce or role")
    return read_json(plaintext, MAX_ANSWER_SIZE, "content")


def read_error(body: bytes) -> ErrorAnswer:
    """The problem that an error's body names; never raises, because anything on the way may have answered instead."""
    try:
        document = _read(body)
    except WireError:
        return ErrorAnswer("", "")
    kind = document.get("type")
    name = kind.removeprefix(ERROR_BASE) if isinstance(kind, str) and kind.startswith(ERROR_BASE) else ""
    return ErrorAnswer(name if name in tuple(ErrorType) else "", _correlation_id(document))


def _read(body: bytes) -> dict[str, Any]:
    return read_json(body, MAX_ANSWER_SIZE, "answer")


def _correlation_id(document: Mapping[str, Any]) -> str:
    value = document.get("correlation-id")
    return value if isinstance(value, str) and _CORRELATION_ID.fullmatch(value) else ""
