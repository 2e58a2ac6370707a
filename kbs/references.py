"""The KMS's reference values, signed: what verifiers hand to guests, who know the signer's key from their plan.

A compact JWS (RFC 7515) with the protected header {"alg": "ES256"} and nothing else, over

    {"context": "morphisms-references/v1", "serial": 3,
     "guests": {NAME: {…}, …},            as `kbs.verifier_attest` reads a guest of the KMS
     "configurations": [B, …]}            digests of the verifier's whole configuration, base64url

A KMS that is updated gets a new document with a greater serial, and no Service has to be rendered anew. The verifier
that serves the document need not be trusted with it: the guest checks it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import rfc8785
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from kbs.attested import MAX_REFERENCES_SIZE
from kbs.guest_values import GuestValuesError, Members
from kbs.messages import WireError, read_json
from kbs.verifier_attest import (
    KmsGuest,
    SignerKey,
    read_configurations,
    read_kms_guest,
    serial_number,
    write_configurations,
    write_kms_guest,
    write_signer,
)

REFERENCES_CONTEXT: Final = "morphisms-references/v1"
_ALGORITHM: Final = "ES256"
_HEADER: Final = {"alg": _ALGORITHM}
_MOST_GUESTS: Final = 64


class ReferencesError(ValueError):
    """Not references, or not by this signer. The text names the member, never its value."""


@dataclass(frozen=True, slots=True)
class References:
    """One issue of the KMS's reference values: at least one guest, in the order of their names, and one configuration.

    `configurations`: SHA-256 digests, see `kbs.attested`.
    """

    serial: int
    guests: tuple[KmsGuest, ...]
    configurations: frozenset[bytes]


def read_references(compact: str, signer: SignerKey) -> References:
    """The values, if `signer` signed them. Raises ReferencesError."""
    if len(compact) > MAX_REFERENCES_SIZE:
        raise ReferencesError(f"more than {MAX_REFERENCES_SIZE} characters")
    try:
        key = ECKey.import_key({**write_signer(signer)})
    except (JoseError, ValueError, TypeError):
        raise ReferencesError("signer is not a point on P-256") from None
    try:
        opened = jws.deserialize_compact(compact, key, algorithms=[_ALGORITHM])
    except (JoseError, ValueError, TypeError, KeyError):
        raise ReferencesError("not a compact JWS by the configured signer") from None
    # A key or an address of one in the header must not look like an offer.
    if opened.headers() != _HEADER:
        raise ReferencesError(f"header has other members than alg: {_ALGORITHM}")
    try:
        return _read(read_json(opened.payload, MAX_REFERENCES_SIZE, "references"))
    except (WireError, GuestValuesError) as error:
        raise ReferencesError(str(error)) from None


def read_unverified_references(compact: str) -> References:
    """The values, whoever signed them: for a look, never for a decision. Raises ReferencesError."""
    try:
        payload = jws.extract_compact(compact.encode()).payload
        return _read(read_json(payload, MAX_REFERENCES_SIZE, "references"))
    except (JoseError, WireError, GuestValuesError, ValueError) as error:
        raise ReferencesError(str(error)) from None


def write_references(references: References, key: ECKey) -> str:
    """The compact JWS. `key`: private, P-256. Raises ReferencesError for values that no reader would take."""
    document: dict[str, Any] = {
        "context": REFERENCES_CONTEXT,
        "serial": references.serial,
        "guests": {guest.reference.name: write_kms_guest(guest) for guest in references.guests},
        "configurations": write_configurations(references.configurations),
    }
    try:
        if _read(document) != references:
            raise ReferencesError("guests: not in the order of their names, or a name is there twice")
    except GuestValuesError as error:
        raise ReferencesError(str(error)) from None
    compact = jws.serialize_compact(_HEADER, rfc8785.dumps(document), key, algorithms=[_ALGORITHM])
    if len(compact) > MAX_REFERENCES_SIZE:
        raise ReferencesError(f"more than {MAX_REFERENCES_SIZE} characters; name fewer guests")
    return compact


def signer_of(key: ECKey) -> SignerKey:
    """The public half, as a plan names it."""
    public = key.as_dict(private=False)
    return SignerKey(str(public["x"]), str(public["y"]))


def _read(document: dict[str, Any]) -> References:
    members = Members(document, "references")
    members.take("context", _context)
    serial = members.take("serial", serial_number)
    guests = members.take("guests", _guests)
    configurations = members.take("configurations", read_configurations)
    members.end()
    return References(serial, guests, configurations)


def _context(value: object, where: str) -> None:
    if value != REFERENCES_CONTEXT:
        raise GuestValuesError(f"{where}: not {REFERENCES_CONTEXT}")


def _guests(value: object, where: str) -> tuple[KmsGuest, ...]:
    if not isinstance(value, dict) or not 0 < len(value) <= _MOST_GUESTS:
        raise GuestValuesError(f"{where}: not an object of 1 to {_MOST_GUESTS} guests")
    return tuple(read_kms_guest(name, guest) for name, guest in sorted(value.items()))
