"""The signer's half of the KMS's reference values: `kbs.references` reads what this writes."""

from __future__ import annotations

from typing import Any

import rfc8785
from joserfc import jws
from joserfc.jwk import ECKey

from kbs.attested import MAX_REFERENCES_SIZE
from kbs.guest_values import GuestValuesError
from kbs.references import ALGORITHM, HEADER, REFERENCES_CONTEXT, References, ReferencesError, read_content
from kbs.verifier_attest import SignerKey, write_configurations, write_kms_guest


def write_references(references: References, key: ECKey) -> str:
    """The compact JWS. `key`: private, P-256. Raises ReferencesError for values that no reader would take."""
    document: dict[str, Any] = {
        "context": REFERENCES_CONTEXT,
        "serial": references.serial,
        "guests": {guest.reference.name: write_kms_guest(guest) for guest in references.guests},
        "configurations": write_configurations(references.configurations),
    }
    try:
        if read_content(document) != references:
            raise ReferencesError("guests: not in the order of their names, or a name is there twice")
    except GuestValuesError as error:
        raise ReferencesError(str(error)) from None
    compact = jws.serialize_compact(HEADER, rfc8785.dumps(document), key, algorithms=[ALGORITHM])
    if len(compact) > MAX_REFERENCES_SIZE:
        raise ReferencesError(f"more than {MAX_REFERENCES_SIZE} characters; name fewer guests")
    return compact


def signer_of(key: ECKey) -> SignerKey:
    """The public half, as a plan names it."""
    public = key.as_dict(private=False)
    return SignerKey(str(public["x"]), str(public["y"]))
