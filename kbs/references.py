"""The KMS's reference values, signed: what verifiers hand to guests, who know the signer's key from their plan.

A compact JWS (RFC 7515) with the protected header {"alg": "ES256"} and nothing else, over

    {"context": "morphisms-references/v1", "serial": 3,
     "guests": {NAME: {…}, …},            as `kbs.verifier_attest` reads a guest of the KMS
     "configurations": [B, …]}            digests of the verifier's whole configuration, base64url

A KMS that is updated gets a new document with a greater serial, and no Service has to be rendered anew. The verifier
that serves the document need not be trusted with it: the guest checks it, by primitives of `cryptography`, because a
pod's cold start would pay for a JOSE library. `kbs.references_signing` writes with one.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from kbs.attested import MAX_REFERENCES_SIZE
from kbs.base64url import decode
from kbs.guest_values import GuestValuesError, Members
from kbs.messages import WireError, read_json
from kbs.verifier_attest import (
    KmsGuest,
    SignerKey,
    read_configurations,
    read_kms_guest,
    serial_number,
)

REFERENCES_CONTEXT: Final = "morphisms-references/v1"
ALGORITHM: Final = "ES256"
HEADER: Final = {"alg": ALGORITHM}
_PARTS: Final = 3
_NUMBER_SIZE: Final = 32
_MOST_GUESTS: Final = 64


class ReferencesError(ValueError):
    """Not references, or not by this signer. The text names the member, never its value."""


class References(NamedTuple):
    """One issue of the KMS's reference values: at least one guest, in the order of their names, and one configuration.

    `configurations`: SHA-256 digests, see `kbs.attested`.
    """

    serial: int
    guests: tuple[KmsGuest, ...]
    configurations: frozenset[bytes]


def read_references(compact: str, signer: SignerKey) -> References:
    """The values, if `signer` signed them. Raises ReferencesError."""
    protected, payload, signature = _parts(compact)
    x, y = (int.from_bytes(decode(number), "big") for number in (signer.x, signer.y))
    try:
        key = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
    except ValueError:
        raise ReferencesError("signer is not a point on P-256") from None
    r, s = (int.from_bytes(half, "big") for half in (signature[:_NUMBER_SIZE], signature[_NUMBER_SIZE:]))
    try:
        key.verify(encode_dss_signature(r, s), f"{protected}.{payload}".encode(), ec.ECDSA(SHA256()))
    except InvalidSignature:
        raise ReferencesError("not a compact JWS by the configured signer") from None
    try:
        header = read_json(decode(protected), MAX_REFERENCES_SIZE, "header")
    except (WireError, ValueError):
        raise ReferencesError("header is not JSON") from None
    # A key or an address of one in the header must not look like an offer.
    if header != HEADER:
        raise ReferencesError(f"header has other members than alg: {ALGORITHM}")
    return _content(payload)


def read_unverified_references(compact: str) -> References:
    """The values, whoever signed them: for a look, never for a decision. Raises ReferencesError."""
    return _content(_parts(compact)[1])


def read_content(document: dict[str, Any]) -> References:
    """The values in a payload. Raises GuestValuesError."""
    members = Members(document, "references")
    members.take("context", _context)
    serial = members.take("serial", serial_number)
    guests = members.take("guests", _guests)
    configurations = members.take("configurations", read_configurations)
    members.end()
    return References(serial, guests, configurations)


def _parts(compact: str) -> tuple[str, str, bytes]:
    """Header and payload as text, and the signature: its two numbers, one behind the other."""
    if len(compact) > MAX_REFERENCES_SIZE:
        raise ReferencesError(f"more than {MAX_REFERENCES_SIZE} characters")
    parts = compact.split(".")
    try:
        if len(parts) != _PARTS:
            raise ValueError("not three parts")
        return parts[0], parts[1], decode(parts[2], 2 * _NUMBER_SIZE)
    except ValueError:
        raise ReferencesError("not a compact JWS by the configured signer") from None


def _content(payload: str) -> References:
    try:
        return read_content(read_json(decode(payload), MAX_REFERENCES_SIZE, "references"))
    except (WireError, GuestValuesError, ValueError) as error:
        raise ReferencesError(str(error)) from None


def _context(value: object, where: str) -> None:
    if value != REFERENCES_CONTEXT:
        raise GuestValuesError(f"{where}: not {REFERENCES_CONTEXT}")


def _guests(value: object, where: str) -> tuple[KmsGuest, ...]:
    if not isinstance(value, dict) or not 0 < len(value) <= _MOST_GUESTS:
        raise GuestValuesError(f"{where}: not an object of 1 to {_MOST_GUESTS} guests")
    return tuple(read_kms_guest(name, guest) for name, guest in sorted(value.items()))
