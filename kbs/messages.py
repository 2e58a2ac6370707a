"""The messages between a guest and the verifier: a strict subset of CoCo's KBS protocol, version 0.4.0.

Both sides use this module, so it imports little: a pod's cold start pays for it. Three calls, in this order:

1. `POST /kbs/v0/auth` → a nonce.
2. `POST /kbs/v0/attest` with evidence whose REPORT_DATA binds (nonce, ephemeral key, pod token) → a bearer token.
3. `GET /kbs/v0/resource/vault/token/ROLE` with the bearer → a Vault token, encrypted to the ephemeral key.

No message repeats what the other side sent, and no error text holds a token, a nonce or evidence.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha384
from typing import Any, Final

import rfc8785
from joserfc import jwe
from joserfc.errors import JoseError
from joserfc.jwk import ECKey
from joserfc.registry import HeaderParameter

AUTH_PATH: Final = "/kbs/v0/auth"
ATTEST_PATH: Final = "/kbs/v0/attest"
TOKEN_PATH: Final = "/kbs/v0/resource/vault/token"
DEFAULT_ROLE: Final = "default"

PROTOCOL: Final = "0.4.0"
TEE: Final = "snp"
HASH: Final = "sha384"
TOKEN_KEY: Final = "k8s-token"
KEY_ALGORITHM: Final = "ECDH-ES+A256KW"
CONTENT_ALGORITHM: Final = "A256GCM"
CURVE: Final = "P-256"
ERROR_BASE: Final = "https://github.com/confidential-containers/kbs/errors/"

MAX_MESSAGE_SIZE: Final = 512 * 1024  # evidence with four certificates as lists of integers has 35 KB
MAX_POD_TOKEN_SIZE: Final = 8 * 1024  # a bound service-account token has 1.2 KB
MAX_ANSWER_SIZE: Final = 64 * 1024
_NONCE = re.compile(r"[A-Za-z0-9+/]{16,128}={0,2}")
_ROLE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_COORDINATE = re.compile(r"[A-Za-z0-9_-]{43}")  # 32 bytes
_CORRELATION = re.compile(r"[0-9a-f]{16}")
_JWE_PARTS = ("protected", "encrypted_key", "iv", "ciphertext", "tag")
_REGISTRY = jwe.JWERegistry(
    header_registry={
        "nonce": HeaderParameter("Nonce of the attestation", "str", True),
        "role": HeaderParameter("Role of the Vault token", "str", True),
    },
    algorithms=[KEY_ALGORITHM, CONTENT_ALGORITHM],
)


class WireError(ValueError):
    """A message that is not what it should be. The text names the field, never its value."""


class Problem(StrEnum):
    """All that a guest is ever told: the last segment of an error's `type`."""

    INVALID = "InvalidRequest"  # 400: not a message of this protocol
    REFUSED = "AttestationRefused"  # 401: judged and refused, for whatever reason; asking again does not help
    UNAVAILABLE = "TemporarilyUnavailable"  # 503: the same request may succeed later, see Retry-After


@dataclass(frozen=True, slots=True)
class AttestRequest:
    """What a guest says. `tee_pubkey` is the JWK as sent: the digest covers each of its members."""

    nonce: str = field(repr=False)
    tee_pubkey: Mapping[str, str]
    primary_evidence: Mapping[str, Any] = field(repr=False)
    additional_evidence: str = field(repr=False)
    pod_token: str = field(repr=False)

    @property
    def digest(self) -> bytes:
        """See `binding`."""
        return binding(self.nonce, self.tee_pubkey, self.additional_evidence)


@dataclass(frozen=True, slots=True)
class VaultToken:
    """What a guest gets in the end. `lease_seconds` 0: without an end."""

    token: str = field(repr=False)
    lease_seconds: int
    renewable: bool
    assurance: str
    simulated: bool


@dataclass(frozen=True, slots=True)
class ErrorAnswer:
    """A refusal as the guest reads it; `correlation_id` is empty when the answer had none."""

    problem: str
    correlation_id: str


class EphemeralKey:
    """The guest's P-256 key pair for one attestation; it never leaves the process that made it."""

    def __init__(self) -> None:
        self._key = ECKey.generate_key(CURVE)

    @property
    def public(self) -> dict[str, str]:
        """The `tee-pubkey` member."""
        both = self._key.as_dict(private=False)
        return {"kty": "EC", "crv": CURVE, "alg": KEY_ALGORITHM, "x": str(both["x"]), "y": str(both["y"])}

    def decrypt(self, compact: str) -> tuple[dict[str, Any], bytes]:
        """Protected header and plaintext of a compact JWE. Raises WireError."""
        try:
            opened = jwe.decrypt_compact(compact, self._key, registry=_REGISTRY)
        except (JoseError, ValueError, TypeError, KeyError):
            raise WireError("answer cannot be decrypted with the ephemeral key") from None
        return opened.headers(), opened.plaintext or b""


def binding(nonce: str, tee_pubkey: Mapping[str, str], additional_evidence: str) -> bytes:
    """SHA-384 of the canonical JSON (RFC 8785) of what REPORT_DATA binds; `report_data.accepted` encodes it."""
    canonical = rfc8785.dumps(
        {"additional-evidence": additional_evidence, "nonce": nonce, "tee-pubkey": {**tee_pubkey}}
    )
    return sha384(canonical).digest()


# --- the guest's side ---------------------------------------------------------------------------------------------


def write_auth() -> bytes:
    """Body of the first call."""
    return _dump({"version": PROTOCOL, "tee": TEE, "extra-params": {"supported-hash-algorithms": [HASH]}})


def read_auth_answer(body: bytes) -> str:
    """The nonce. Raises WireError."""
    document = _object(_load(body, MAX_ANSWER_SIZE), "answer")
    extra = document.get("extra-params")
    if isinstance(extra, dict) and extra.get("selected-hash-algorithm", HASH) != HASH:
        raise WireError(f"selected-hash-algorithm is not {HASH}")
    return _text(document, "nonce", _NONCE)


def write_additional_evidence(pod_token: str) -> str:
    """The `additional_evidence` member: JSON text with the pod's service-account token."""
    return _dump({TOKEN_KEY: pod_token}).decode()


def write_attest(
    nonce: str, tee_pubkey: Mapping[str, str], primary_evidence: Mapping[str, Any], additional_evidence: str
) -> bytes:
    """Body of the second call. `primary_evidence`: see `evidence.coco_document`."""
    return _dump(
        {
            "runtime-data": {"nonce": nonce, "tee-pubkey": dict(tee_pubkey)},
            "tee-evidence": {"primary_evidence": primary_evidence, "additional_evidence": additional_evidence},
        }
    )


def read_attest_answer(body: bytes) -> str:
    """The bearer token of the third call. Raises WireError."""
    document = _object(_load(body, MAX_ANSWER_SIZE), "answer")
    token = document.get("token")
    if not isinstance(token, str) or not token.isascii() or not token.isprintable():
        raise WireError("token is missing")
    return token


def read_correlation_id(body: bytes) -> str:
    """Under which the verifier remembers the attestation of this second answer; empty when it does not say."""
    return _correlation_id(_object(_load(body, MAX_ANSWER_SIZE), "answer"))


def token_path(role: str = DEFAULT_ROLE) -> str:
    """Path of the third call. Raises WireError for what is no role name."""
    if not _ROLE.fullmatch(role):
        raise WireError("role is not a name")
    return f"{TOKEN_PATH}/{role}"


def open_token(body: bytes, key: EphemeralKey, nonce: str, role: str = DEFAULT_ROLE) -> VaultToken:
    """The Vault token, if it was made for this key, this nonce and this role. Raises WireError."""
    document = _object(_load(body, MAX_ANSWER_SIZE), "answer")
    parts = [document.get(name) for name in _JWE_PARTS]
    if not all(isinstance(part, str) and "." not in part for part in parts):
        raise WireError("answer is not a flattened JWE")
    header, plaintext = key.decrypt(".".join(map(str, parts)))
    # Another attestation's answer, or another role's, must not pass for this one.
    if header.get("nonce") != nonce or header.get("role") != role:
        raise WireError("answer is for another nonce or role")
    content = _object(_load(plaintext, MAX_ANSWER_SIZE), "content")
    try:
        result = VaultToken(**content)
    except TypeError:
        raise WireError("content has other members than a Vault token has") from None
    fields = (result.token, result.assurance, result.lease_seconds, result.renewable, result.simulated)
    if list(map(type, fields)) != [str, str, int, bool, bool]:
        raise WireError("content is not a Vault token")
    return result


def read_error(body: bytes) -> ErrorAnswer:
    """What an error's body says; never raises, because anybody on the way may have answered instead."""
    try:
        document = _object(_load(body, MAX_ANSWER_SIZE), "answer")
    except WireError:
        return ErrorAnswer("", "")
    kind = document.get("type")
    name = kind.removeprefix(ERROR_BASE) if isinstance(kind, str) and kind.startswith(ERROR_BASE) else ""
    return ErrorAnswer(name if name in tuple(Problem) else "", _correlation_id(document))


# --- the verifier's side ------------------------------------------------------------------------------------------


def read_auth(body: bytes) -> None:
    """Check the first call's body. Raises WireError."""
    document = _object(_load(body, 4096), "body")
    if document.get("version") != PROTOCOL:
        raise WireError(f"version is not {PROTOCOL}")
    if document.get("tee") != TEE:
        raise WireError(f"tee is not {TEE}")
    extra = document.get("extra-params")
    offered = extra.get("supported-hash-algorithms") if isinstance(extra, dict) else None
    if offered is not None and (not isinstance(offered, list) or HASH not in offered):
        raise WireError(f"supported-hash-algorithms has no {HASH}")


def write_auth_answer(nonce: str) -> bytes:
    """Body of the first answer."""
    return _dump({"nonce": nonce, "extra-params": {"selected-hash-algorithm": HASH}})


def read_attest(body: bytes) -> AttestRequest:
    """The second call's body, shapes checked, nothing believed. Raises WireError."""
    document = _object(_load(body, MAX_MESSAGE_SIZE), "body")
    runtime = _object(document.get("runtime-data"), "runtime-data")
    evidence = _object(document.get("tee-evidence"), "tee-evidence")
    if runtime.keys() != {"nonce", "tee-pubkey"}:
        raise WireError("runtime-data has other members than nonce and tee-pubkey")
    nonce = _text(runtime, "nonce", _NONCE)
    public = _public_key(_object(runtime["tee-pubkey"], "tee-pubkey"))
    additional = evidence.get("additional_evidence")
    if not isinstance(additional, str) or not additional.isascii():
        raise WireError("additional_evidence is not JSON text")
    inner = _object(_load(additional.encode(), 2 * MAX_POD_TOKEN_SIZE), "additional_evidence")
    token = inner.get(TOKEN_KEY)
    if inner.keys() != {TOKEN_KEY} or not isinstance(token, str) or not 0 < len(token) <= MAX_POD_TOKEN_SIZE:
        raise WireError(f"additional_evidence is not {TOKEN_KEY} alone")
    primary = _object(evidence.get("primary_evidence"), "primary_evidence")
    return AttestRequest(nonce, public, primary, additional, token)


def write_attest_answer(bearer: str, correlation_id: str) -> bytes:
    """Body of the second answer."""
    return _dump({"token": bearer, "correlation-id": correlation_id})


def is_role(text: str) -> bool:
    """The text can be a role name."""
    return _ROLE.fullmatch(text) is not None


def seal_token(token: VaultToken, tee_pubkey: Mapping[str, str], nonce: str, role: str) -> bytes:
    """Body of the third answer: a flattened JWE that only the ephemeral key's holder can open. Raises WireError."""
    content = {
        "token": token.token,
        "lease_seconds": token.lease_seconds,
        "renewable": token.renewable,
        "assurance": token.assurance,
        "simulated": token.simulated,
    }
    header = {"alg": KEY_ALGORITHM, "enc": CONTENT_ALGORITHM, "nonce": nonce, "role": role}
    key = import_public_key(tee_pubkey)
    compact = jwe.encrypt_compact(header, _dump(content), key, registry=_REGISTRY)
    return _dump(dict(zip(_JWE_PARTS, compact.split("."), strict=True)))


def write_error(problem: Problem, correlation_id: str) -> bytes:
    """Body of an error, RFC 7807's shape as KBS has it. The same for every cause but for the correlation id."""
    return _dump(
        {
            "type": ERROR_BASE + problem.value,
            "detail": f"{problem.value}, correlation id {correlation_id}",
            "correlation-id": correlation_id,
        }
    )


def import_public_key(tee_pubkey: Mapping[str, str]) -> ECKey:
    """The key of a `tee-pubkey` member. Raises WireError for a point that is not on the curve."""
    try:
        return ECKey.import_key({name: tee_pubkey[name] for name in ("kty", "crv", "x", "y")})
    except (JoseError, ValueError, TypeError, KeyError):
        raise WireError("tee-pubkey is not a point on the curve") from None


def _public_key(source: Mapping[str, Any]) -> Mapping[str, str]:
    """Exactly a public P-256 key; a private member, or one that nobody knows, is refused."""
    if not {"kty", "crv", "x", "y"} <= source.keys() <= {"kty", "crv", "x", "y", "alg"}:
        raise WireError("tee-pubkey has other members than kty, crv, x, y and alg")
    if source["kty"] != "EC" or source["crv"] != CURVE or source.get("alg", KEY_ALGORITHM) != KEY_ALGORITHM:
        raise WireError(f"tee-pubkey is not an EC key on {CURVE} for {KEY_ALGORITHM}")
    for name in ("x", "y"):
        _text(source, name, _COORDINATE)
    import_public_key(source)
    return source


def _correlation_id(document: Mapping[str, Any]) -> str:
    value = document.get("correlation-id")
    return value if isinstance(value, str) and _CORRELATION.fullmatch(value) else ""


def _dump(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def _load(body: bytes, limit: int) -> Any:
    if len(body) > limit:
        raise WireError(f"message has more than {limit} bytes")
    try:
        return json.loads(body, object_pairs_hook=_unique, parse_constant=_no_constant)
    except WireError:
        raise
    except (ValueError, RecursionError):
        raise WireError("message is not JSON") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    # Two readers of one document must not see two values.
    if len(found) != len(pairs):
        raise WireError("message has a member twice")
    return found


def _no_constant(_: str) -> Any:
    raise WireError("message has a number that JSON does not know")


def _object(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise WireError(f"{name} is not an object")
    return value


def _text(source: Mapping[str, Any], name: str, pattern: re.Pattern[str]) -> str:
    value = source.get(name)
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise WireError(f"{name} is missing or malformed")
    return value
