"""Which CA signed which certificate, and when a certificate is valid."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import ExtendedKeyUsageOID

from certs.pem import Pair


def valid(certificate: x509.Certificate, now: datetime) -> bool:
    """Whether `now` is within its validity."""
    return certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc


def vouches(issuer: x509.Certificate, leaf: x509.Certificate) -> bool:
    """Whether `issuer` is a CA that signed `leaf`. Neither needs to be valid now."""
    try:
        leaf.verify_directly_issued_by(issuer)
        return issuer.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        return False


def voucher(candidates: Iterable[x509.Certificate], leaf: x509.Certificate) -> x509.Certificate | None:
    """The first of `candidates` that vouches for `leaf`."""
    return next((candidate for candidate in candidates if vouches(candidate, leaf)), None)


def is_authority(pair: Pair, now: datetime) -> bool:
    """Whether it can sign leaves now."""
    return vouches(pair.certificate, pair.certificate) and valid(pair.certificate, now)


def serves(certificate: x509.Certificate, names: Iterable[str]) -> bool:
    """Whether it is a server's certificate for all of these DNS names."""
    extensions = certificate.extensions
    try:
        alternatives = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        usages = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return False
    return set(names) <= set(alternatives.get_values_for_type(x509.DNSName)) and (
        ExtendedKeyUsageOID.SERVER_AUTH in usages
    )
