"""PEM from Secrets and webhook configurations. Hostile input yields None, never an exception."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

MAX_BYTES: Final = 256 << 10
MAX_CERTIFICATES: Final = 32

# What cryptography raises for malformed bytes.
_UNREADABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)

# What a server may sign with in TLS 1.3 (RFC 8446, section 4.2.3).
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and the private key that belongs to it. `repr` shows no key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey = field(compare=False)  # the certificate says which

    def __repr__(self) -> str:
        return f"Pair(serial={self.certificate.serial_number:x})"

    @property
    def certificate_pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """PKCS #8, unencrypted."""
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )


def read_certificates(pem: bytes) -> tuple[x509.Certificate, ...] | None:
    """The certificates in `pem`, each once, in order; empty for empty input; None when it is not such PEM."""
    if not pem.strip():
        return ()
    if len(pem) > MAX_BYTES or pem.count(b"-----BEGIN") > MAX_CERTIFICATES:
        return None
    try:
        found = x509.load_pem_x509_certificates(pem)
        for certificate in found:
            certificate.public_key()
            # Parsed on first use, and hostile bytes raise there.
            certificate.extensions  # noqa: B018
            certificate.not_valid_before_utc, certificate.not_valid_after_utc  # noqa: B018
    except _UNREADABLE:
        return None
    return tuple(dict.fromkeys(found))


def read_pair(certificate: bytes, key: bytes) -> Pair | None:
    """The pair; None when either is missing or unreadable, a server cannot use the key, or the key belongs to another
    certificate. Of several certificates the first is taken.
    """
    certificates = read_certificates(certificate)
    if not certificates or not key or len(key) > MAX_BYTES:
        return None
    try:
        private = serialization.load_pem_private_key(key, password=None)
    except _UNREADABLE:
        return None
    if not isinstance(private, ec.EllipticCurvePrivateKey) or not isinstance(private.curve, _CURVES):
        return None
    if private.public_key() != certificates[0].public_key():
        return None
    return Pair(certificates[0], private)


def write_certificates(certificates: Iterable[x509.Certificate]) -> bytes:
    """One PEM of all of them."""
    return b"".join(certificate.public_bytes(serialization.Encoding.PEM) for certificate in certificates)
