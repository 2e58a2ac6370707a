"""The messages between a guest and the verifier: a strict subset of CoCo's KBS protocol, version 0.4.0.

Three calls, in this order:

1. `POST /kbs/v0/auth` → a nonce.
2. `POST /kbs/v0/attest` with evidence whose REPORT_DATA binds (nonce, ephemeral key, pod token) → a bearer token.
3. `GET /kbs/v0/resource/vault/token/ROLE` with the bearer → a Vault token, encrypted to the ephemeral key.

Before them, a guest whose plan says so demands the verifier's own evidence: `kbs.attested`.

This module holds what both halves share. `kbs.guest` writes the requests and reads the answers, `kbs.verifier` does the
reverse; neither half imports the other. All three import little, because a pod's cold start pays for each module.

No message repeats what the other side sent, and no error text holds a token, a nonce or evidence.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from enum import StrEnum
from hashlib import sha384
from typing import Any, Final, NamedTuple

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

MAX_AUTH_SIZE: Final = 4 * 1024
MAX_ATTEST_SIZE: Final = 64 * 1024  # evidence with four certificates as lists of integers has 35 KB
MAX_INITDATA_SIZE: Final = 512 * 1024  # the guest's own limit on the document
MAX_ATTEST_WITH_INITDATA_SIZE: Final = 640 * 1024
MAX_POD_TOKEN_SIZE: Final = 8 * 1024  # a bound service-account token has 1.2 KB
MAX_ANSWER_SIZE: Final = 64 * 1024
# The second call names its nonce here too: the verifier checks it before it reads the body, and keeps room for such
# calls. A verifier that does not know the header ignores it.
NONCE_HEADER: Final = "Morphisms-Nonce"
# The same nonce as the KBS protocol's cookie, which a guest's own attestation agent sends back: it knows no header of
# ours, and its second call carries the guest's whole document.
SESSION_COOKIE: Final = "kbs-session-id"
# The third call says which form of the answer its guest reads: with version 2 it may hold Vault's CA.
WIRE_HEADER: Final = "Morphisms-Wire"
WIRE_VERSION: Final = "2"
MAX_VAULT_CA_SIZE: Final = 24 * 1024  # PEM; what is left of an answer's 64 KiB after two times base64 and the rest
NONCE_PATTERN: Final = re.compile(r"[A-Za-z0-9+/]{16,128}={0,2}")
# `json.dumps` would make an encoder for each message.
_COMPACT: Final = json.JSONEncoder(separators=(",", ":")).encode
_CANONICAL: Final = json.JSONEncoder(separators=(",", ":"), sort_keys=True, ensure_ascii=False).encode
JWE_PARTS: Final = ("protected", "encrypted_key", "iv", "ciphertext", "tag")  # RFC 7516, section 7.2.2


class WireError(ValueError):
    """A message that is not what it should be. The text names the field, never its value."""


class ErrorType(StrEnum):
    """The last segment of an error's `type`, and all that a guest learns about a refusal.

    The 503s name the party that cannot answer, so that people turn to the right one. None says anything about evidence.
    """

    INVALID = "InvalidRequest"  # 400: not a message of this protocol
    REFUSED = "AttestationRefused"  # 401: evaluated and refused, for any reason; trying again does not help
    SESSION = "SessionUnknown"  # 503 for a nonce, 401 for a bearer: not one of this process, begin with the first call
    VAULT_SEALED = "VaultSealed"  # 503
    VAULT = "VaultUnavailable"  # 503: Vault does not answer, or not as it should
    CLUSTER = "ClusterUnavailable"  # 503: the API server of the pod's cluster does not answer
    CERTIFICATES = "CertificatesUnavailable"  # 503: the chip's certificates are not fetched yet
    EVIDENCE = "EvidenceUnavailable"  # 503: the verifier has no evidence of its own at the moment
    SEALED = "VerifierSealed"  # 503: the verifier waits for the secrets that people provision
    CLOCK = "ClockOff"  # 503: the verifier's own clock is off
    UNAVAILABLE = "TemporarilyUnavailable"  # 503: the same request may succeed later, see Retry-After


class VaultToken(NamedTuple):
    """The plaintext of the third answer. `lease_seconds` 0: the token does not expire.

    `vault_ca`: the CA certificates (PEM) by which the verifier itself trusts Vault; empty where it uses the system's
    store, and for guests that did not send WIRE_HEADER. Only a guest that attested the verifier may prefer it to the
    plan's.
    """

    token: str
    lease_seconds: int
    renewable: bool
    assurance: str
    simulated: bool
    vault_ca: str = ""

    def __repr__(self) -> str:  # without the token
        return f"VaultToken(assurance={self.assurance!r}, simulated={self.simulated})"


def binding(nonce: str, tee_pubkey: Mapping[str, str], additional_evidence: str) -> bytes:
    """SHA-384 of the canonical JSON (RFC 8785) of what REPORT_DATA binds; `report_data.accepted` encodes it."""
    bound = {"additional-evidence": additional_evidence, "nonce": nonce, "tee-pubkey": {**tee_pubkey}}
    # Names and values are ASCII text, for which the standard library writes the canonical form.
    return sha384(_CANONICAL(bound).encode()).digest()


def write_json(document: Mapping[str, Any]) -> bytes:
    """Compact JSON."""
    return _COMPACT(document).encode()


def read_json(body: bytes, limit: int, name: str) -> dict[str, Any]:
    """The object that `body` holds; `name` stands for it in errors.

    Raises WireError: more than `limit` bytes, not JSON in UTF-8, not an object, a member given twice, NaN or an
    infinity.
    """
    if len(body) > limit:
        raise WireError(f"message has more than {limit} bytes")
    try:
        # Given bytes, json.loads would guess UTF-16 and UTF-32 too.
        value = json.loads(body.decode(), object_pairs_hook=_unique, parse_constant=_no_constant)
    except WireError:
        raise
    except (ValueError, RecursionError):
        raise WireError("message is not JSON") from None
    return require_object(value, name)


def require_object(value: Any, name: str) -> dict[str, Any]:
    """The value, if it is an object. Raises WireError."""
    if not isinstance(value, dict):
        raise WireError(f"{name} is not an object")
    return value


def require_text(source: Mapping[str, Any], name: str, pattern: re.Pattern[str]) -> str:
    """The member, if it is text of this pattern. Raises WireError."""
    value = source.get(name)
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise WireError(f"{name} is missing or malformed")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    # Two readers of one document must not see two values.
    if len(found) != len(pairs):
        raise WireError("message has a member twice")
    return found


def _no_constant(_: str) -> Any:
    raise WireError("message has a number that JSON does not know")
