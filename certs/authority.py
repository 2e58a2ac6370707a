"""Makes certificates: a CA that may sign for servers of given names only, and its leaves. ECDSA P-256 (RFC 5280)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from ipaddress import ip_address, ip_network

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from certs.pem import Pair
from certs.periods import BACKDATE, Periods


def make_authority(now: datetime, periods: Periods, names: Sequence[str] = (), title: str = "morphisms") -> Pair:
    """A self-signed CA; with `names`, it can sign for these DNS names and those below them, and for nothing else."""
    key = ec.generate_private_key(ec.SECP256R1())
    serial = x509.random_serial_number()
    # Each CA has its own subject, so that clients can tell the old and the new one in a bundle apart.
    subject = _subject(f"{title} CA {serial & 0xFFFFFFFF:08x}")
    builder = (
        _builder(subject, subject, key.public_key(), serial)
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + periods.authority)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if names:
        permitted = [x509.DNSName(name) for name in names]
        # A constraint on DNS names says nothing of addresses (RFC 5280, section 4.2.1.10).
        addresses = [x509.IPAddress(ip_network(every)) for every in ("0.0.0.0/0", "::/0")]
        builder = builder.add_extension(x509.NameConstraints(permitted, addresses), critical=True)
    return Pair(builder.sign(key, hashes.SHA256()), key)


def issue_leaf(authority: Pair, names: Sequence[str], now: datetime, periods: Periods) -> Pair:
    """A serving certificate for `names` (DNS names, IP addresses); it expires with its CA at the latest."""
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = authority.certificate
    begins, ends = max(now - BACKDATE, issuer.not_valid_before_utc), min(now + periods.leaf, issuer.not_valid_after_utc)
    builder = _leaf(issuer.subject, key, names, begins, ends).add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False
    )
    return Pair(builder.sign(authority.key, hashes.SHA256()), key)


def self_signed_leaf(names: Sequence[str], now: datetime, periods: Periods) -> Pair:
    """A serving certificate for `names` that no CA vouches for: for callers that find its key by other means."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _leaf(_subject(names[0][:64]), key, names, now - BACKDATE, now + periods.leaf)
    return Pair(builder.sign(key, hashes.SHA256()), key)


def _leaf(
    issuer: x509.Name, key: ec.EllipticCurvePrivateKey, names: Sequence[str], begins: datetime, ends: datetime
) -> x509.CertificateBuilder:
    alternatives = x509.SubjectAlternativeName([_alternative(name) for name in names])
    return (
        # A subject's common name holds 64 characters; clients check the alternative names.
        _builder(_subject(names[0][:64]), issuer, key.public_key(), x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
        .add_extension(alternatives, critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, serial: int
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer)
    return builder.public_key(key).serial_number(serial)


def _subject(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
