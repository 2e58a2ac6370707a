"""Revocation lists of AMD's key service: signed by the ARK, they list revoked ASKs and ASVKs.

Leaves all have serial number 0. The list for VCEKs and the one for VLEKs have the same issuer and do not say which they
are: the URL or the configuration that a list came by says it. A serial on either list counts for all certificates under
the root; a report needs the list of its own kind of leaf.
"""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives._serialization import Encoding  # as in kbs.spki

from attestation.errors import CertificateError
from attestation.pki.certificates import common_name, pem_blocks, signature_algorithm

MAX_CRL_SIZE = 64 * 1024  # real ones have 0.9 KB


class RevocationList(NamedTuple):
    """One CRL, read. `next_update` is None when the list names no end: such a list is never fresh.

    `for_vleks`: it is the list for VLEKs and ASVKs, else the one for VCEKs and ASKs.
    """

    der: bytes
    issuer: x509.Name
    issuer_name: str
    this_update: datetime
    next_update: datetime | None
    serials: frozenset[int]
    signature_algorithm: str
    signature: bytes
    tbs: bytes
    for_vleks: bool = False

    def is_fresh(self, now: datetime) -> bool:
        """thisUpdate ≤ now ≤ nextUpdate. `now` is aware."""
        return self.next_update is not None and self.this_update <= now <= self.next_update


def parse_crl(data: bytes, *, for_vleks: bool = False) -> RevocationList:
    """Read one CRL, DER or PEM. Raises CertificateError. Results are cached by content."""
    if len(data) > MAX_CRL_SIZE:
        raise CertificateError(f"CRL has {len(data)} bytes, required at most {MAX_CRL_SIZE}")
    return _parse(bytes(data))._replace(for_vleks=for_vleks)


@lru_cache(maxsize=64)
def _parse(data: bytes) -> RevocationList:
    try:
        blocks = pem_blocks(data, b"X509 CRL")
        crl = x509.load_pem_x509_crl(blocks[0]) if blocks else x509.load_der_x509_crl(data)
        for extension in crl.extensions:
            if extension.critical:
                # An issuing distribution point or a delta would change what absence from the list means.
                raise CertificateError(f"CRL has a critical extension {extension.oid.dotted_string}")
        return RevocationList(
            der=crl.public_bytes(Encoding.DER),
            issuer=crl.issuer,
            issuer_name=common_name(crl.issuer),
            this_update=crl.last_update_utc,
            next_update=crl.next_update_utc,
            serials=frozenset(entry.serial_number for entry in crl),
            signature_algorithm=signature_algorithm(crl),
            signature=crl.signature,
            tbs=crl.tbs_certlist_bytes,
        )
    except CertificateError:
        raise
    except (ValueError, TypeError, KeyError, OverflowError, UnsupportedAlgorithm) as error:
        raise CertificateError(f"CRL cannot be read: {type(error).__name__}") from None
    except (x509.DuplicateExtension, x509.InvalidVersion, x509.UnsupportedGeneralNameType) as error:
        raise CertificateError(f"CRL cannot be read: {type(error).__name__}") from None
