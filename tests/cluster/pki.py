"""The control plane's own keys: who a client is, is what its certificate says."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.support.certificates import builder, common_name


class Authority:
    """A certificate authority for one run, in a private folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700)
        self.folder = folder
        self.certificate = folder / "ca.crt"
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = common_name("test cluster")
        certificate = (
            builder(self._name, self._name, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def server(self, file: str, more: Sequence[str] = ()) -> tuple[Path, Path]:
        """(certificate, key) for a server on loopback, and by these further names and addresses."""
        names = [_general_name(text) for text in ("localhost", "127.0.0.1", *more)]
        subject = common_name("localhost")
        return self._issue(file, subject, ExtendedKeyUsageOID.SERVER_AUTH, x509.SubjectAlternativeName(names))

    def client(self, file: str, user: str, groups: Sequence[str]) -> tuple[Path, Path]:
        """(certificate, key) by which the API server knows a user and its groups."""
        attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
        subject = x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, user)])
        return self._issue(file, subject, ExtendedKeyUsageOID.CLIENT_AUTH, None)

    def _issue(
        self, file: str, subject: x509.Name, usage: x509.ObjectIdentifier, names: x509.SubjectAlternativeName | None
    ) -> tuple[Path, Path]:
        key = ec.generate_private_key(ec.SECP256R1())
        unsigned = builder(subject, self._name, key.public_key())
        unsigned = unsigned.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        if names is not None:
            unsigned = unsigned.add_extension(names, critical=False)
        certificate = unsigned.sign(self._key, hashes.SHA256())
        paths = self.folder / f"{file}.crt", self.folder / f"{file}.key"
        paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        paths[1].write_bytes(_pem(key))
        return paths


def _general_name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def write_signing_key(path: Path) -> Path:
    """The key that signs service-account tokens."""
    path.write_bytes(_pem(rsa.generate_private_key(65537, 2048)))
    return path


def _pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    form = serialization.PrivateFormat.TraditionalOpenSSL
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
