"""The verifier's half of the KBS messages: reads the requests, writes the answers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jiter
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from joserfc import jwe
from joserfc.errors import JoseError
from joserfc.jwk import ECKey
from joserfc.registry import HeaderParameter

from kbs.attested import MAX_ATTESTED_SIZE, NONCE_SIZE, Step
from kbs.base64url import decode, encode
from kbs.hand_over import PROVISIONED_ROLE, REPLICA_KEY, read_replica_evidence
from kbs.messages import (
    CONTENT_ALGORITHM,
    CURVE,
    ERROR_BASE,
    HASH,
    JWE_PARTS,
    KEY_ALGORITHM,
    MAX_ATTEST_SIZE,
    MAX_ATTEST_WITH_INITDATA_SIZE,
    MAX_AUTH_SIZE,
    MAX_INITDATA_SIZE,
    MAX_POD_TOKEN_SIZE,
    NONCE_PATTERN,
    PROTOCOL,
    TEE,
    TOKEN_KEY,
    ErrorType,
    VaultToken,
    WireError,
    binding,
    require_object,
    require_text,
    write_json,
)

INITDATA_FORMAT = "toml"
# Possessive throughout, so that no text makes it go back: it takes one look at each byte.
_INITDATA = re.compile(
    rb'"init-data"\s*+:\s*+\{\s*+(?:"format"\s*+:\s*+"toml"\s*+,\s*+)?+"body"\s*+:\s*+("(?:[^"\\]++|\\.)*+")', re.DOTALL
)
# CoCo's evidence with four certificates has 32 containers and 200 quotes; a table of a host has a few more.
_MAX_CONTAINERS, _MAX_QUOTES = 1024, 4096
_MAX_ESCAPES = 256 * 1024
_JWE_REGISTRY = jwe.JWERegistry(
    header_registry={
        "nonce": HeaderParameter("Nonce of the attestation", "str", True),
        "role": HeaderParameter("Role of the Vault token", "str", True),
    },
    algorithms=[KEY_ALGORITHM, CONTENT_ALGORITHM],
)
_COORDINATE = re.compile(r"[A-Za-z0-9_-]{43}")  # 32 bytes
_UNCOMPRESSED = b"\x04"  # a point with both coordinates, SEC 1, section 2.3.4


@dataclass(frozen=True, slots=True)
class AttestRequest:
    """The second call's body. `tee_pubkey` is the JWK as sent: the digest covers each of its members.

    `initdata`: the TOML document that the guest says it was launched with, None if it sent none. `pod_token` is empty
    where the guest's own attestation agent speaks, which has none.
    """

    nonce: str = field(repr=False)
    tee_pubkey: Mapping[str, str]
    primary_evidence: Mapping[str, Any] = field(repr=False)
    additional_evidence: str = field(repr=False)
    pod_token: str = field(repr=False)
    initdata: bytes | None = field(repr=False, default=None)
    replica: bytes | None = None

    @property
    def digest(self) -> bytes:
        """See `kbs.messages.binding`."""
        return binding(self.nonce, self.tee_pubkey, self.additional_evidence)


def read_auth(body: bytes) -> None:
    """Check the first call's body. Raises WireError."""
    document = _read(body, MAX_AUTH_SIZE, "body")
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
    return write_json({"nonce": nonce, "extra-params": {"selected-hash-algorithm": HASH}})


def read_attest(body: bytes) -> AttestRequest:
    """The second call's body: shapes are checked, nothing in it is trusted yet. Raises WireError."""
    _require_few_values(body)
    document = _read(body, MAX_ATTEST_WITH_INITDATA_SIZE, "body")
    initdata = _initdata(document.get("init-data"))
    runtime = require_object(document.get("runtime-data"), "runtime-data")
    evidence = require_object(document.get("tee-evidence"), "tee-evidence")
    if runtime.keys() != {"nonce", "tee-pubkey"}:
        raise WireError("runtime-data has other members than nonce and tee-pubkey")
    nonce = require_text(runtime, "nonce", NONCE_PATTERN)
    public = _public_key(require_object(runtime["tee-pubkey"], "tee-pubkey"))
    additional = evidence.get("additional_evidence")
    if not isinstance(additional, str) or not additional.isascii():
        raise WireError("additional_evidence is not JSON text")
    if not additional:
        primary = require_object(evidence.get("primary_evidence"), "primary_evidence")
        return AttestRequest(nonce, public, primary, additional, "", initdata)
    inner = _read(additional.encode(), 2 * MAX_POD_TOKEN_SIZE, "additional_evidence")
    if REPLICA_KEY in inner:
        primary = require_object(evidence.get("primary_evidence"), "primary_evidence")
        return AttestRequest(nonce, public, primary, additional, "", None, read_replica_evidence(inner))
    token = inner.get(TOKEN_KEY)
    if inner.keys() != {TOKEN_KEY} or not isinstance(token, str) or not 0 < len(token) <= MAX_POD_TOKEN_SIZE:
        raise WireError(f"additional_evidence is not {TOKEN_KEY} alone")
    primary = require_object(evidence.get("primary_evidence"), "primary_evidence")
    return AttestRequest(nonce, public, primary, additional, token, initdata)


def _require_few_values(body: bytes) -> None:
    """Look at the bytes before a parser makes objects of them. Raises WireError.

    The initdata document may be large, and is one value. The rest is short, and a stranger must not fill it with more
    values than evidence has: a parser takes its time for each.
    """
    if body.count(b"\\") > _MAX_ESCAPES:
        raise WireError(f"message has more than {_MAX_ESCAPES} escapes")
    # Most bodies have none, and to find that out is much cheaper without the pattern.
    document = _INITDATA.search(body) if b'"init-data"' in body else None
    rest = body if document is None else body[: document.start(1)] + body[document.end(1) :]
    if len(rest) > MAX_ATTEST_SIZE:
        raise WireError(f"message has more than {MAX_ATTEST_SIZE} bytes beside init-data")
    if rest.count(b"[") + rest.count(b"{") > _MAX_CONTAINERS or rest.count(b'"') > _MAX_QUOTES:
        raise WireError("message has more lists, objects or texts than evidence has")


def _initdata(value: object) -> bytes | None:
    """The text of `init-data: {format: toml, body: …}`, a member that a guest may leave out."""
    if value is None:
        return None
    if not isinstance(value, dict) or value.keys() != {"format", "body"} or value["format"] != INITDATA_FORMAT:
        raise WireError(f"init-data is not a document of format {INITDATA_FORMAT}")
    text = value["body"]
    if not isinstance(text, str) or not 0 < len(document := text.encode()) <= MAX_INITDATA_SIZE:
        raise WireError(f"init-data has no text of at most {MAX_INITDATA_SIZE} bytes")
    return document


def write_attest_answer(bearer: str, correlation_id: str) -> bytes:
    """Body of the second answer."""
    return write_json({"token": bearer, "correlation-id": correlation_id})


def seal_token(token: VaultToken, tee_pubkey: Mapping[str, str], nonce: str, role: str) -> bytes:
    """Body of the third answer: a flattened JWE that only the ephemeral key's holder can open. Raises WireError.

    `token.vault_ca` is empty for a guest that did not say that it reads it: an older one refuses an unknown member.
    """
    content: dict[str, Any] = {
        "token": token.token,
        "lease_seconds": token.lease_seconds,
        "renewable": token.renewable,
        "assurance": token.assurance,
        "simulated": token.simulated,
    }
    if token.vault_ca:
        content["vault_ca"] = token.vault_ca
    return _sealed(content, tee_pubkey, nonce, role)


def seal_provisioned(secrets: Mapping[str, str], tee_pubkey: Mapping[str, str], nonce: str) -> bytes:
    """Body of the third answer to another replica (`kbs.hand_over`), sealed likewise. Raises WireError."""
    return _sealed(secrets, tee_pubkey, nonce, PROVISIONED_ROLE)


def _sealed(content: Mapping[str, Any], tee_pubkey: Mapping[str, str], nonce: str, role: str) -> bytes:
    # In this order, with a place for the key that the library makes: CoCo's clients do not authenticate the header as
    # sent, but as they write it again, `alg` and `enc` first and the other members sorted (kbs-types, `generate_aad`).
    header = {"alg": KEY_ALGORITHM, "enc": CONTENT_ALGORITHM, "epk": {}, "nonce": nonce, "role": role}
    key = _import_public_key(tee_pubkey)
    compact = jwe.encrypt_compact(header, write_json(content), key, registry=_JWE_REGISTRY)
    return write_json(dict(zip(JWE_PARTS, compact.split("."), strict=True)))


def read_attested(body: bytes) -> bytes:
    """The nonce of a call to `/attested`, 32 bytes. Raises WireError."""
    document = _read(body, MAX_ATTESTED_SIZE, "body")
    if document.keys() != {"nonce"}:
        raise WireError("body has other members than nonce")
    try:
        return decode(document["nonce"], NONCE_SIZE)
    except ValueError as error:
        raise WireError(f"nonce: {error}") from None


def write_attested_answer(
    evidence: bytes,
    path: Sequence[Step],
    *,
    policies: bytes,
    configuration: bytes,
    references: str,
    simulated: bool = False,
) -> bytes:
    """The answer to `/attested`, see `kbs.attested`. `evidence`: JSON, the same for all nonces of one firmware call.

    `references`: compact JWS, or empty.
    """
    document: dict[str, Any] = {
        "path": [{"side": step.side.value, "hash": encode(step.hash)} for step in path],
        "policies": encode(policies),
        "configuration": encode(configuration),
    }
    if references:
        document["references"] = references
    if simulated:
        document["simulated"] = True
    return b'{"evidence":' + evidence + b"," + write_json(document)[1:]


def write_error(problem: ErrorType, correlation_id: str) -> bytes:
    """Body of an error, RFC 7807's shape as KBS has it. The same for every cause but for the correlation id."""
    return write_json(
        {
            "type": ERROR_BASE + problem.value,
            "detail": f"{problem.value}, correlation id {correlation_id}",
            "correlation-id": correlation_id,
        }
    )


def _read(body: bytes, limit: int, name: str) -> dict[str, Any]:
    """As `kbs.messages.read_json`, by a parser that hostile bodies cannot slow down: it calls no Python per object.

    It reads UTF-8 alone, refuses a member given twice, and nests no deeper than 200 levels.
    """
    if len(body) > limit:
        raise WireError(f"message has more than {limit} bytes")
    try:
        value = jiter.from_json(body, allow_inf_nan=False, catch_duplicate_keys=True)
    except ValueError as error:
        # jiter gives the reason as text alone. It is not repeated: it may name a member that the other side sent.
        twice = "duplicate key" in str(error)
        raise WireError("message has a member twice" if twice else "message is not JSON") from None
    return require_object(value, name)


class _SortedKey(ECKey):
    """A key whose ephemeral keys are written with their members sorted, for the header's sake."""

    def as_dict(self, *arguments: Any, **options: Any) -> Any:
        return dict(sorted(super().as_dict(*arguments, **options).items()))


def _import_public_key(tee_pubkey: Mapping[str, str]) -> ECKey:
    try:
        return _SortedKey.import_key({name: tee_pubkey[name] for name in ("kty", "crv", "x", "y")})
    except (JoseError, ValueError, TypeError, KeyError):
        raise WireError("tee-pubkey is not a point on the curve") from None


def _public_key(source: Mapping[str, Any]) -> Mapping[str, str]:
    """Exactly a public P-256 key; a private member, or an unknown one, is refused."""
    if not {"kty", "crv", "x", "y"} <= source.keys() <= {"kty", "crv", "x", "y", "alg"}:
        raise WireError("tee-pubkey has other members than kty, crv, x, y and alg")
    if source["kty"] != "EC" or source["crv"] != CURVE or source.get("alg", KEY_ALGORITHM) != KEY_ALGORITHM:
        raise WireError(f"tee-pubkey is not an EC key on {CURVE} for {KEY_ALGORITHM}")
    for name in ("x", "y"):
        require_text(source, name, _COORDINATE)
    # The library that seals for this key later would make it in ten times the time.
    try:
        point = _UNCOMPRESSED + decode(source["x"], 32) + decode(source["y"], 32)
        EllipticCurvePublicKey.from_encoded_point(SECP256R1(), point)
    except ValueError:
        raise WireError("tee-pubkey is not a point on the curve") from None
    return source
