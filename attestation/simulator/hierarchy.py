"""The simulated maker's key hierarchy on disk: ARK, ASK and one chip's VCEK, in AMD's shapes (AMD 57230).

Made once (two RSA-4096 keys take a second or two) and kept: a verifier was given `root.pem` and must not be surprised.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from attestation.errors import AttestationError
from attestation.pki.certificates import (
    OID_HWID,
    OID_PRODUCT_NAME,
    OID_SPL,
    OID_STRUCT_VERSION,
    Certificate,
    parse_certificate,
)
from attestation.pki.crl import parse_crl
from attestation.report.products import SIMULATED
from attestation.report.tcb import Tcb

# What the VCEK is derived for, and what reports name; the numbers are a real Genoa machine's.
TCB = Tcb(bootloader=10, tee=0, snp=23, microcode=84)
ROOT, ASK, VCEK, LOCK = "root.pem", "ask.pem", "vcek.pem", "lock"
CRLS, CRL = "crls", "crl.pem"  # a folder of its own: commands take folders of lists and refuse other files in them
ROOT_KEY, VCEK_KEY = "root.key", "vcek.key"

_SHA384 = hashes.SHA384()
_PSS = padding.PSS(padding.MGF1(_SHA384), 48)
_AUTHORITY_DAYS, _LEAF_DAYS, _CRL_DAYS = 25 * 365, 7 * 365, 365  # as long as AMD's
_ROOT_SERIAL, _ASK_SERIAL = 65536, 65537
# AMD's leaves all have serial number 0, which X.509 forbids and the library refuses to write.
_LEAF_SERIAL = 1
_CLOCK_SKEW = timedelta(hours=1)


class SimulatorError(AttestationError):
    """The directory cannot be used; the message says what to do."""


@dataclass(frozen=True)
class Hierarchy:
    """What a device needs: the chip's key and the certificates above it. `root_path` is what a verifier is given."""

    root: Certificate
    ask: Certificate
    vcek: Certificate
    vcek_key: ec.EllipticCurvePrivateKey
    root_path: Path
    crl_path: Path


def open_hierarchy(folder: Path, now: datetime | None = None) -> Hierarchy:
    """The hierarchy in `folder` (mode 0700, keys 0600), made on first use; an ageing revocation list is renewed.

    Safe when two processes start at once. Raises SimulatorError for a folder that holds half of one or is readable by
    others, OSError when it cannot be written.
    """
    now = datetime.now(UTC) if now is None else now
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    with _locked(folder):
        there = [name for name in (ROOT_KEY, ASK, VCEK, VCEK_KEY, ROOT) if (folder / name).exists()]
        if not there:
            _make(folder, now)
        elif len(there) != 5:
            raise SimulatorError(f"{folder} holds only {', '.join(there)} of a simulated machine; remove them")
        return _load(folder, now)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _make(folder: Path, now: datetime) -> None:
    with ThreadPoolExecutor(2) as pool:
        root_key, ask_key = pool.map(lambda _: rsa.generate_private_key(65537, 4096), range(2))
    vcek_key = ec.generate_private_key(ec.SECP384R1())
    ask_name = SIMULATED.intermediate_name(vlek=False)
    root = _authority(SIMULATED.ark_name, root_key.public_key(), root_key, _ROOT_SERIAL, now)
    ask = _authority(ask_name, ask_key.public_key(), root_key, _ASK_SERIAL, now)
    vcek = _leaf(vcek_key.public_key(), ask_key, secrets.token_bytes(SIMULATED.chip_id_size), now)
    # The ASK's key is not kept: there is one chip, and it has its certificate.
    _write(folder / ROOT_KEY, _key_pem(root_key))
    _write(folder / VCEK_KEY, _key_pem(vcek_key))
    _write(folder / ASK, ask.public_bytes(Encoding.PEM))
    _write(folder / VCEK, vcek.public_bytes(Encoding.PEM))
    _write(folder / ROOT, root.public_bytes(Encoding.PEM))


def _load(folder: Path, now: datetime) -> Hierarchy:
    vcek_key = _load_key(folder / VCEK_KEY)
    if not isinstance(vcek_key, ec.EllipticCurvePrivateKey):
        raise SimulatorError(f"{folder / VCEK_KEY} is not an EC key; remove the folder")
    root, ask, vcek = (parse_certificate((folder / name).read_bytes()) for name in (ROOT, ASK, VCEK))
    if vcek.not_after <= now:
        raise SimulatorError(f"{folder}: the simulated chip's certificate has expired; remove it")
    _renew_crl(folder, now)
    return Hierarchy(root, ask, vcek, vcek_key, folder / ROOT, folder / CRLS / CRL)


def _load_key(path: Path) -> object:
    if path.stat().st_mode & 0o077:
        raise SimulatorError(f"{path} is readable by others; chmod 600 it, or remove the folder")
    try:
        return load_pem_private_key(path.read_bytes(), None)
    except (ValueError, TypeError):
        raise SimulatorError(f"{path} is not a private key; remove the folder") from None


def _renew_crl(folder: Path, now: datetime) -> None:
    """An empty list with at least half of its year left: reference values demand a fresh one by default."""
    path = folder / CRLS / CRL
    path.parent.mkdir(mode=0o700, exist_ok=True)
    if path.exists():
        until = parse_crl(path.read_bytes()).next_update
        if until is not None and until - now > timedelta(days=_CRL_DAYS / 2):
            return
    root_key = _load_key(folder / ROOT_KEY)  # only here: checking a 4,096-bit key takes half a second
    if not isinstance(root_key, rsa.RSAPrivateKey):
        raise SimulatorError(f"{folder / ROOT_KEY} is not an RSA key; remove the folder")
    crl = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(_name(SIMULATED.ark_name))
        .last_update(now - _CLOCK_SKEW)
        .next_update(now + timedelta(days=_CRL_DAYS))
        .sign(root_key, _SHA384, rsa_padding=_PSS)
    )
    _write(path, crl.public_bytes(Encoding.PEM))


def _authority(
    subject: str, key: rsa.RSAPublicKey, root_key: rsa.RSAPrivateKey, serial: int, now: datetime
) -> x509.Certificate:
    is_root = subject == SIMULATED.ark_name
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=is_root,
        encipher_only=False,
        decipher_only=False,
    )
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(SIMULATED.ark_name))
        .public_key(key)
        .serial_number(serial)
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + timedelta(days=_AUTHORITY_DAYS))
        .add_extension(x509.BasicConstraints(True, None if is_root else 0), critical=True)
        .add_extension(usage, critical=True)
        .sign(root_key, _SHA384, rsa_padding=_PSS)
    )


def _leaf(key: ec.EllipticCurvePublicKey, ask_key: rsa.RSAPrivateKey, hwid: bytes, now: datetime) -> x509.Certificate:
    product = SIMULATED.name.encode("ascii")
    extensions = {
        OID_STRUCT_VERSION: _der_integer(0),
        OID_PRODUCT_NAME: bytes([0x16, len(product)]) + product,
        OID_HWID: hwid,  # bare bytes, as AMD writes them
    }
    for name, version in (TCB.as_dict() | dict.fromkeys(("spl4", "spl5", "spl6", "spl7"), 0)).items():
        extensions[OID_SPL[name]] = _der_integer(version)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name("SEV-VCEK"))
        .issuer_name(_name(SIMULATED.intermediate_name(vlek=False)))
        .public_key(key)
        .serial_number(_LEAF_SERIAL)
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + timedelta(days=_LEAF_DAYS))
    )
    for oid, value in extensions.items():
        builder = builder.add_extension(x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value), critical=False)
    return builder.sign(ask_key, _SHA384, rsa_padding=_PSS)


def _der_integer(value: int) -> bytes:
    body = value.to_bytes(value.bit_length() // 8 + 1, "big")
    return bytes([0x02, len(body)]) + body


def _name(common_name: str) -> x509.Name:
    """A name of this project: to a reader it must not look like AMD's."""
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Morphisms simulated hardware"),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def _key_pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all, mode 0600."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
