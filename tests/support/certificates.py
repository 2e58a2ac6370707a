"""X.509 certificates of tests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID


def common_name(text: str) -> x509.Name:
    """A name of nothing but a common name."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: Any,
    *,
    serial: int | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> x509.CertificateBuilder:
    """An unsigned certificate of a public `key`, without extensions.

    By default it has a random serial number, and is valid from an hour ago for two days.
    """
    now = datetime.now(UTC)
    return x509.CertificateBuilder(
        issuer_name=issuer,
        subject_name=subject,
        public_key=key,
        serial_number=x509.random_serial_number() if serial is None else serial,
        not_valid_before=(since or now - timedelta(hours=1)).replace(tzinfo=None),
        not_valid_after=(until or now + timedelta(days=2)).replace(tzinfo=None),
    )


def make_pair(kind: str = "ec") -> tuple[bytes, bytes]:
    """(certificate, key) as PEM for localhost and 127.0.0.1, of kind `ec` or `rsa`; the certificate is its own CA."""
    key: Any = ec.generate_private_key(ec.SECP256R1()) if kind == "ec" else rsa.generate_private_key(65537, 2048)
    name = common_name("localhost")
    names = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
    certificate = (
        builder(name, name, key.public_key())
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return certificate.public_bytes(encoding), key.private_bytes(encoding, form, serialization.NoEncryption())


def write_pair(folder: Path) -> None:
    """Write a fresh pair as ca.crt, tls.crt and tls.key."""
    certificate, key = make_pair()
    (folder / "ca.crt").write_bytes(certificate)
    (folder / "tls.crt").write_bytes(certificate)
    (folder / "tls.key").write_bytes(key)
