"""Provisioning: how people bring secrets into a verifier that runs in a guest and starts without any.

Two calls, on one connection whose certificate the caller has attested first (`POST /attested`):

1. `GET /provision` → a nonce of this process, good once, and which secrets it waits for.
2. `POST /provision` with a compact JWS (ES256) by one of the provisioners that the verifier's configuration lists →
   what became of each secret.

The payload is `{context, spki, nonce, secrets}`. `spki` is the SHA-256 of the public key (SubjectPublicKeyInfo, DER)
of the certificate that this connection shows, so nobody can hand the text to another verifier. The secrets are in the
clear inside it: they travel in TLS that ends in the attested process. `write_provision` is for the command, and
`read_provision` for the verifier; no error text holds a secret.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from kbs.messages import (
    CURVE,
    ERROR_BASE,
    NONCE_PATTERN,
    WireError,
    read_json,
    require_object,
    require_text,
    write_json,
)

PROVISION_PATH: Final = "/provision"
CONTEXT: Final = "morphisms-provision/v1"
ALGORITHM: Final = "ES256"
SPKI_SIZE: Final = 32  # SHA-256
MAX_PROVISION_SIZE: Final = 32 * 1024
MAX_ANSWER_SIZE: Final = 16 * 1024
MAX_SECRET_SIZE: Final = 8 * 1024  # a CA's certificate and key as PEM have 1 KB
_DIGEST = re.compile(r"[A-Za-z0-9_-]{43}")
_CORRELATION_ID = re.compile(r"[0-9a-f]{16}")
_SENTENCE = re.compile(r"[ -~]{0,300}")


class SecretName(StrEnum):
    """The secrets that a verifier takes, and nothing else. Each value is text."""

    VAULT_ROLE_ID = "vault-role-id"  # of the AppRole by which the verifier uses Vault
    VAULT_SECRET_ID = "vault-secret-id"
    UNSEAL_SHARE = "unseal-share"  # one share of the OpenBao on the verifier's loopback; it is passed on and not kept
    TLS_CA_KEY = "tls-ca-key"  # PEM: the CA's certificate and its key; the verifier makes its own leaf below it
    SIGNING_KEY = "signing-key"  # PEM: the P-256 key that signs logins


class Outcome(StrEnum):
    """What became of one secret."""

    TAKEN = "taken"
    UNCHANGED = "unchanged"  # this very value was held already, or OpenBao was unsealed already


class ProvisionErrorType(StrEnum):
    """The last segment of an error's `type`. Only a provisioner learns more than the first two."""

    INVALID = "InvalidRequest"  # 400: not a message of this protocol
    STRANGER = "ProvisionerUnknown"  # 401: signed by no key that the configuration lists
    CONNECTION = "ProvisionConnection"  # 409: made for another certificate than this connection's
    NONCE = "ProvisionNonce"  # 409: not a nonce of this process, too old, or used
    NOT_NEEDED = "ProvisionNotNeeded"  # 409: a secret that the configuration does not list under `needs`
    UNUSABLE = "ProvisionUnusable"  # 409: a secret that is not of its form
    OTHER_VALUE = "ProvisionOtherValue"  # 409: another value is held; restart the verifier to replace it
    VAULT = "VaultUnavailable"  # 503: the share could not be passed on; the other secrets were taken


@dataclass(frozen=True, slots=True)
class Unsealing:
    """How far OpenBao is: `progress` shares of `threshold` have come. All zero while it does not answer."""

    sealed: bool
    progress: int
    threshold: int


@dataclass(frozen=True, slots=True)
class ProvisionState:
    """A verifier's answer. `sealed`: it serves no guest yet, because `missing` is not empty.

    `unsealing`: None where the verifier needs no share. `nonce`: of GET's answer alone. `outcomes`: of POST's alone.
    """

    sealed: bool
    missing: tuple[SecretName, ...]
    unsealing: Unsealing | None = None
    nonce: str = ""
    outcomes: Mapping[SecretName, Outcome] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ProvisionRequest:
    """A payload whose signature holds. `spki`: 32 bytes. `signer`: the thumbprint of the provisioner's key."""

    spki: bytes
    nonce: str = field(repr=False)
    secrets: Mapping[SecretName, str] = field(repr=False)
    signer: str


@dataclass(frozen=True, slots=True)
class ProvisionError:
    """A refusal as the command reads it. `problem` is empty when the answer is not a verifier's."""

    problem: str
    detail: str
    correlation_id: str


class StrangerError(WireError):
    """The text is signed by no provisioner."""


def read_provisioner(document: Mapping[str, Any]) -> ECKey:
    """The public key of a JWK `{kty: EC, crv: P-256, x, y}`; `kid`, `use` and `alg` are ignored. Raises WireError."""
    allowed = {"kty", "crv", "x", "y", "kid", "use", "alg"}
    if not {"kty", "crv", "x", "y"} <= document.keys() <= allowed:
        raise WireError("a provisioner's JWK has the members kty, crv, x and y, and no private ones")
    if document["kty"] != "EC" or document["crv"] != CURVE:
        raise WireError(f"a provisioner's JWK is not an EC key on {CURVE}")
    try:
        return ECKey.import_key(
            {
                name: require_text(document, name, _DIGEST) if name in "xy" else document[name]
                for name in ("kty", "crv", "x", "y")
            }
        )
    except WireError:
        raise WireError("a provisioner's JWK has an x or y that is not 32 bytes in base64url") from None
    except (JoseError, ValueError, TypeError):
        raise WireError("a provisioner's JWK is not a point on the curve") from None


def write_provision(key: ECKey, spki: bytes, nonce: str, secrets: Mapping[SecretName, str]) -> bytes:
    """Body of POST, for the connection whose certificate has this SPKI digest. Raises WireError."""
    if len(spki) != SPKI_SIZE:
        raise WireError(f"spki has {len(spki)} bytes, required {SPKI_SIZE}")
    payload = {
        "context": CONTEXT,
        "spki": _encode(spki),
        "nonce": nonce,
        "secrets": {name.value: _checked(name, value) for name, value in secrets.items()},
    }
    try:
        compact = jws.serialize_compact({"alg": ALGORITHM}, write_json(payload), key, algorithms=[ALGORITHM])
    except (JoseError, ValueError, TypeError):
        raise WireError(f"the provisioner's key cannot sign {ALGORITHM}: required a private key on {CURVE}") from None
    body = compact.encode()
    if len(body) > MAX_PROVISION_SIZE:
        raise WireError(f"the secrets have more than {MAX_PROVISION_SIZE} bytes together")
    return body


def read_provision(body: bytes, provisioners: Sequence[ECKey]) -> ProvisionRequest:
    """The payload, if one of `provisioners` signed it. The caller compares `spki` and spends `nonce`.

    Raises StrangerError where the signature is nobody's, WireError for anything else that is wrong.
    """
    if len(body) > MAX_PROVISION_SIZE:
        raise WireError(f"message has more than {MAX_PROVISION_SIZE} bytes")
    if body.count(b".") != 2 or not body.isascii():
        raise WireError("message is not a compact JWS")
    payload, signer = _verified(body, provisioners)
    document = read_json(payload, MAX_PROVISION_SIZE, "payload")
    if document.keys() != {"context", "spki", "nonce", "secrets"}:
        raise WireError("payload has other members than context, spki, nonce and secrets")
    if document["context"] != CONTEXT:
        raise WireError(f"context is not {CONTEXT}")
    return ProvisionRequest(
        _decode(require_text(document, "spki", _DIGEST)),
        require_text(document, "nonce", NONCE_PATTERN),
        _secrets(require_object(document["secrets"], "secrets")),
        signer,
    )


def write_provision_state(state: ProvisionState) -> bytes:
    """Body of both answers."""
    unsealing = state.unsealing
    document: dict[str, Any] = {
        "context": CONTEXT,
        "sealed": state.sealed,
        "missing": [name.value for name in state.missing],
        "unsealing": None
        if unsealing is None
        else {"sealed": unsealing.sealed, "progress": unsealing.progress, "threshold": unsealing.threshold},
    }
    if state.nonce:
        document["nonce"] = state.nonce
    if state.outcomes:
        document["outcomes"] = {name.value: outcome.value for name, outcome in state.outcomes.items()}
    return write_json(document)


def read_provision_state(body: bytes) -> ProvisionState:
    """A verifier's answer. Raises WireError."""
    document = read_json(body, MAX_ANSWER_SIZE, "answer")
    sealed, missing, held = document.get("sealed"), document.get("missing"), document.get("unsealing")
    if document.get("context") != CONTEXT or not isinstance(sealed, bool) or not isinstance(missing, list):
        raise WireError(f"answer is not of {CONTEXT}")
    unsealing = None
    if held is not None:
        unsealing = _unsealing(require_object(held, "unsealing"))
    nonce = require_text(document, "nonce", NONCE_PATTERN) if "nonce" in document else ""
    outcomes = require_object(document.get("outcomes", {}), "outcomes")
    try:
        return ProvisionState(
            sealed,
            tuple(map(SecretName, missing)),
            unsealing,
            nonce,
            {SecretName(name): Outcome(outcome) for name, outcome in outcomes.items()},
        )
    except ValueError:
        raise WireError("answer names a secret or an outcome that this version does not know") from None


def write_provision_error(problem: ProvisionErrorType, detail: str, correlation_id: str) -> bytes:
    """Body of a refusal, RFC 7807's shape as the other calls have it. `detail` names secrets, and holds none."""
    return write_json({"type": ERROR_BASE + problem.value, "detail": detail, "correlation-id": correlation_id})


def read_provision_error(body: bytes) -> ProvisionError:
    """What a refusal says; never raises, because anything on the way may have answered instead."""
    try:
        document = read_json(body, MAX_ANSWER_SIZE, "answer")
    except WireError:
        return ProvisionError("", "", "")
    kind, detail, identifier = (document.get(name) for name in ("type", "detail", "correlation-id"))
    name = kind.removeprefix(ERROR_BASE) if isinstance(kind, str) and kind.startswith(ERROR_BASE) else ""
    return ProvisionError(
        name if name.isascii() and name.isalnum() and len(name) <= 64 else "",
        detail if isinstance(detail, str) and _SENTENCE.fullmatch(detail) else "",
        identifier if isinstance(identifier, str) and _CORRELATION_ID.fullmatch(identifier) else "",
    )


def _verified(body: bytes, provisioners: Sequence[ECKey]) -> tuple[bytes, str]:
    for key in provisioners:
        try:
            signed = jws.deserialize_compact(body, key, algorithms=[ALGORITHM])
        except (JoseError, ValueError, TypeError, KeyError):
            continue
        if signed.headers().keys() <= {"alg", "kid", "typ"}:
            return signed.payload, key.thumbprint()
    raise StrangerError("message is signed by no key that provisioning.provisioners lists")


def _secrets(document: Mapping[str, Any]) -> Mapping[SecretName, str]:
    if not document:
        raise WireError("secrets is empty")
    names = {name.value: name for name in SecretName}
    if not document.keys() <= names.keys():
        raise WireError(f"secrets has other members than {', '.join(names)}")
    return {names[name]: _checked(names[name], value) for name, value in document.items()}


def _checked(name: SecretName, value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= MAX_SECRET_SIZE or not value.isascii():
        raise WireError(f"secrets.{name.value} is not ASCII text of 1 to {MAX_SECRET_SIZE} characters")
    return value


def _unsealing(document: Mapping[str, Any]) -> Unsealing:
    sealed, progress, threshold = (document.get(name) for name in ("sealed", "progress", "threshold"))
    if (
        not isinstance(sealed, bool)
        or not isinstance(progress, int)
        or isinstance(progress, bool)
        or not isinstance(threshold, int)
        or isinstance(threshold, bool)
    ):
        raise WireError("unsealing is not {sealed, progress, threshold}")
    return Unsealing(sealed, progress, threshold)


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(text + "=")
    except (binascii.Error, ValueError):
        raise WireError("spki is not base64url") from None
