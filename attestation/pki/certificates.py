"""Certificates of AMD's key hierarchy: parsing only. `appraisal.checks` decides whether to trust them.

ARK (self-signed) issues ASK and ASVK; the ASK issues VCEKs, the ASVK issues VLEKs (AMD 57230, "VCEK Certificate and KDS
Interface Specification"). Signatures are RSASSA-PSS with SHA-384, MGF1 with SHA-384 and a salt of 48 bytes, no other.
"""

from __future__ import annotations

import hashlib
import warnings
from datetime import datetime
from functools import lru_cache
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives._serialization import Encoding  # as in kbs.spki
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.utils import CryptographyDeprecationWarning

from attestation.errors import CertificateError, FormatError
from attestation.report.products import ProductLine
from attestation.report.tcb import Tcb, components

MAX_CERTIFICATE_SIZE = 8192  # real ones have 1.3 to 1.7 KB, as PEM 2.4 KB
MAX_CERTIFICATES_IN_PEM = 16

# Extensions of VCEK and VLEK: AMD 57230, table "VCEK Certificate Fields".
_AMD = "1.3.6.1.4.1.3704.1"
OID_STRUCT_VERSION = f"{_AMD}.1"
OID_PRODUCT_NAME = f"{_AMD}.2"
OID_HWID = f"{_AMD}.4"
OID_CSP_ID = f"{_AMD}.5"
OID_SPL = {
    "bootloader": f"{_AMD}.3.1",
    "tee": f"{_AMD}.3.2",
    "snp": f"{_AMD}.3.3",
    "spl4": f"{_AMD}.3.4",
    "spl5": f"{_AMD}.3.5",
    "spl6": f"{_AMD}.3.6",
    "spl7": f"{_AMD}.3.7",
    "microcode": f"{_AMD}.3.8",
    "fmc": f"{_AMD}.3.9",
}
_RESERVED_SPLS = ("spl4", "spl5", "spl6", "spl7")
HWID_SIZES = (8, 64)
MAX_RSA_BITS = 4096  # AMD's size; a guest that hands in a larger key buys processor time with it

_HASH = hashes.SHA384()
_PSS = padding.PSS(mgf=padding.MGF1(hashes.SHA384()), salt_length=48)
REQUIRED_SIGNATURE_ALGORITHM = "RSASSA-PSS SHA-384 MGF1-SHA-384 salt 48"


class VekExtensions(NamedTuple):
    """AMD's extensions of a leaf; None where absent. `spl`: component -> version 0 to 255. `hwid`: raw bytes."""

    struct_version: int | None
    product_name: str | None
    spl: dict[str, int]
    hwid: bytes | None
    csp_id: str | None

    def tcb(self, line: ProductLine) -> Tcb | None:
        """The TCB the leaf's key is derived for, in the line's components; None when that is not what it has.

        That is: a component missing, one too many, or a reserved one set.
        """
        wanted = components(line.tcb_layout)
        if {name for name in self.spl if name not in _RESERVED_SPLS} != set(wanted):
            return None
        if any(self.spl.get(name) for name in _RESERVED_SPLS):
            return None
        return Tcb(**{name: self.spl[name] for name in wanted})


class Certificate(NamedTuple):
    """One certificate, read. Times are aware, in UTC; `sha256` is the lower-case hexadecimal digest of `der`.

    `key_name`: "RSA-4096 e=65537", "EC secp384r1" and the like. `validity`: the two times as text.
    """

    der: bytes
    sha256: str
    serial: int
    subject: x509.Name
    issuer: x509.Name
    subject_name: str
    issuer_name: str
    not_before: datetime
    not_after: datetime
    validity: str
    key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey
    key_name: str
    is_ca: bool
    path_length: int | None
    key_cert_sign: bool
    crl_sign: bool
    signature_algorithm: str
    signature: bytes
    tbs: bytes
    vek: VekExtensions


def parse_certificate(data: bytes) -> Certificate:
    """Read one certificate, DER or PEM (the first block). Raises CertificateError. Results are cached by content."""
    if len(data) > MAX_CERTIFICATE_SIZE:
        raise CertificateError(f"certificate has {len(data)} bytes, required at most {MAX_CERTIFICATE_SIZE}")
    return _parse(bytes(data))


def parse_certificates(data: bytes) -> tuple[Certificate, ...]:
    """All certificates of a PEM file, or the one of a DER file. Raises CertificateError, also for none."""
    blocks = pem_blocks(data, b"CERTIFICATE")
    if len(blocks) > MAX_CERTIFICATES_IN_PEM:
        raise CertificateError(f"file has {len(blocks)} certificates, required at most {MAX_CERTIFICATES_IN_PEM}")
    return tuple(parse_certificate(block) for block in blocks or [data])


def pem_blocks(data: bytes, label: bytes) -> list[bytes]:
    """The PEM blocks with this label, in one pass: a pattern would look for each beginning's end anew."""
    begin, end = b"-----BEGIN %s-----" % label, b"-----END %s-----" % label
    blocks: list[bytes] = []
    start = data.find(begin)
    while start >= 0 and (stop := data.find(end, start)) >= 0:
        stop += len(end)
        blocks.append(data[start:stop])
        start = data.find(begin, stop)
    return blocks


@lru_cache(maxsize=1024)
def _parse(data: bytes) -> Certificate:
    try:
        with warnings.catch_warnings():
            # Every VEK has serial number 0; a test fails on the day the library stops reading it.
            warnings.filterwarnings("ignore", "Parsed a serial number", CryptographyDeprecationWarning)
            return _read(_load(data))
    except CertificateError:
        raise
    except (ValueError, TypeError, KeyError, OverflowError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise CertificateError(f"certificate cannot be read: {type(error).__name__}") from None
    except (x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
        raise CertificateError(f"certificate cannot be read: {type(error).__name__}") from None


def _load(data: bytes) -> x509.Certificate:
    if b"-----BEGIN" in data[:64]:
        return x509.load_pem_x509_certificate(data)
    return x509.load_der_x509_certificate(data)


def _read(certificate: x509.Certificate) -> Certificate:
    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
        raise CertificateError("certificate has neither an EC nor an RSA key")
    der = certificate.public_bytes(Encoding.DER)
    since, until = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    extensions = certificate.extensions
    basic: x509.BasicConstraints | None = None
    usage: x509.KeyUsage | None = None
    for extension in extensions:
        if isinstance(extension.value, x509.BasicConstraints):
            basic = extension.value
        elif isinstance(extension.value, x509.KeyUsage):
            usage = extension.value
        elif extension.critical:
            raise CertificateError(f"certificate has an unknown critical extension {extension.oid.dotted_string}")
    return Certificate(
        der=der,
        sha256=hashlib.sha256(der).hexdigest(),
        serial=certificate.serial_number,
        subject=certificate.subject,
        issuer=certificate.issuer,
        subject_name=common_name(certificate.subject),
        issuer_name=common_name(certificate.issuer),
        not_before=since,
        not_after=until,
        validity=f"{since.isoformat()} to {until.isoformat()}",
        key=key,
        key_name=_key_name(key),
        is_ca=basic is not None and basic.ca,
        path_length=None if basic is None else basic.path_length,
        key_cert_sign=usage is not None and usage.key_cert_sign,
        crl_sign=usage is not None and usage.crl_sign,
        signature_algorithm=signature_algorithm(certificate),
        signature=certificate.signature,
        tbs=certificate.tbs_certificate_bytes,
        vek=_vek_extensions(extensions),
    )


def _key_name(key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey) -> str:
    if isinstance(key, rsa.RSAPublicKey):
        return f"RSA-{key.key_size} e={key.public_numbers().e}"
    return f"EC {key.curve.name}"


def common_name(name: x509.Name) -> str:
    """The only common name, or "" when there is none or more than one.

    It ends up in logs and on terminals: at most 64 characters, and ? for everything that is not printable ASCII.
    """
    found = name.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    text = str(found[0].value) if len(found) == 1 else ""
    return "".join(each if each.isascii() and each.isprintable() else "?" for each in text[:64])


def signature_algorithm(signed: x509.Certificate | x509.CertificateRevocationList) -> str:
    """What the signature algorithm and its parameters say, in the words of REQUIRED_SIGNATURE_ALGORITHM."""
    if signed.signature_algorithm_oid != x509.SignatureAlgorithmOID.RSASSA_PSS:
        return signed.signature_algorithm_oid.dotted_string
    parameters = signed.signature_algorithm_parameters
    if not isinstance(parameters, padding.PSS) or signed.signature_hash_algorithm is None:
        return "RSASSA-PSS with unreadable parameters"
    digest, mask = signed.signature_hash_algorithm, parameters.mgf._algorithm
    return (
        f"RSASSA-PSS {_hash_name(digest)} MGF1-{_hash_name(mask)} salt {parameters._salt_length}"
        # A library that knew more than PSS with MGF1 would have to be asked differently.
        if isinstance(parameters.mgf, padding.MGF1)
        else "RSASSA-PSS without MGF1"
    )


def _hash_name(algorithm: hashes.HashAlgorithm) -> str:
    return algorithm.name.upper().replace("SHA", "SHA-", 1)


def is_signed_by(tbs: bytes, signature: bytes, issuer: Certificate) -> bool:
    """The issuer's RSA key made this signature with exactly AMD's PSS parameters, whatever the certificate says.

    The answer depends on these bytes alone, and is remembered: guests of one machine bring the same chain each time.
    """
    return _is_signed_by(tbs, signature, issuer.der)


@lru_cache(maxsize=1024)
def _is_signed_by(tbs: bytes, signature: bytes, issuer: bytes) -> bool:
    key = _parse(issuer).key
    if not isinstance(key, rsa.RSAPublicKey) or key.key_size > MAX_RSA_BITS:
        return False
    try:
        key.verify(signature, tbs, _PSS, _HASH)
    except (InvalidSignature, ValueError, UnsupportedAlgorithm):
        return False
    return True


def _vek_extensions(extensions: x509.Extensions) -> VekExtensions:
    raw = {
        extension.oid.dotted_string: extension.value.value
        for extension in extensions
        if isinstance(extension.value, x509.UnrecognizedExtension)
    }
    try:
        spl = {name: _der_integer(raw[oid]) for name, oid in OID_SPL.items() if oid in raw}
        return VekExtensions(
            struct_version=_der_integer(raw[OID_STRUCT_VERSION]) if OID_STRUCT_VERSION in raw else None,
            product_name=_der_ia5(raw[OID_PRODUCT_NAME]) if OID_PRODUCT_NAME in raw else None,
            spl=spl,
            hwid=_hwid(raw[OID_HWID]) if OID_HWID in raw else None,
            csp_id=_der_ia5(raw[OID_CSP_ID]) if OID_CSP_ID in raw else None,
        )
    except FormatError as error:
        raise CertificateError(f"AMD extension: {error}") from None


def _der_integer(value: bytes) -> int:
    """INTEGER from 0 to 255 in DER: shortest form only."""
    if len(value) == 3 and value[:2] == b"\x02\x01" and value[2] < 0x80:
        return value[2]
    if len(value) == 4 and value[:3] == b"\x02\x02\x00" and value[3] >= 0x80:
        return value[3]
    raise FormatError("not a DER INTEGER from 0 to 255")


def _der_ia5(value: bytes) -> str:
    if len(value) < 2 or value[0] != 0x16 or value[1] > 0x7F or len(value) != 2 + value[1] or not value[2:].isascii():
        raise FormatError("not a short DER IA5String")
    text = value[2:].decode("ascii")
    if not text.isprintable():
        raise FormatError("an IA5String that is not printable")
    return text


def _hwid(value: bytes) -> bytes:
    """AMD writes the bare bytes, no DER tag; some tools write an OCTET STRING. The length distinguishes them."""
    if len(value) in HWID_SIZES:
        return value
    if len(value) >= 2 and value[0] == 0x04 and value[1] == len(value) - 2 and value[1] in HWID_SIZES:
        return value[2:]
    raise FormatError(f"hwID has {len(value)} bytes, required {' or '.join(map(str, HWID_SIZES))}")
