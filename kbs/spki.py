"""The name of a TLS key, by which the verifier's report is bound to one connection."""

from __future__ import annotations

from hashlib import sha256

from cryptography import x509

# The public module, `serialization`, brings OpenSSH's formats along, which no guest reads: 8 ms of a cold start.
from cryptography.hazmat.primitives._serialization import Encoding, PublicFormat


def spki_digest(certificate: bytes) -> bytes:
    """SHA-256 of the SubjectPublicKeyInfo (DER) of a certificate (DER). Raises ValueError for one without a usable key.

    Every side computes it here, because the library writes the key anew and not as the certificate spells it.
    """
    try:
        key = x509.load_der_x509_certificate(certificate).public_key()
        return sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()
    except Exception as error:  # the library's parser raises many kinds, its own and others
        raise ValueError(f"a certificate whose key cannot be read: {type(error).__name__}") from None
