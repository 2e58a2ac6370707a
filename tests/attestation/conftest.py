"""Real vectors where they are, and a key hierarchy of our own in AMD's shapes for what no vector covers."""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from attestation.appraisal.appraise import Expectation, appraise
from attestation.appraisal.result import AttestationResult
from attestation.pki.certificates import (
    OID_CSP_ID,
    OID_HWID,
    OID_PRODUCT_NAME,
    OID_SPL,
    OID_STRUCT_VERSION,
    Certificate,
    parse_certificate,
    parse_certificates,
)
from attestation.pki.crl import RevocationList, parse_crl
from attestation.pki.endorsements import Endorsements
from attestation.pki.roots import TrustAnchors, amd_trust_anchors
from attestation.report.abi import SIGNED_SIZE, encode_report
from attestation.report.envelopes import Evidence, from_raw
from attestation.report.products import ProductLine, line_by_name
from attestation.report.tcb import Tcb, encode_tcb
from kbs.reference_values import SOFT_CRL
from tests.support.certificates import builder
from tests.support.vectors import Store, store

SHA384 = hashes.SHA384()


@dataclass(frozen=True)
class Vectors:
    """Real reports, certificates and revocation lists by name; `now` is when all of the leaves are valid."""

    store: Store
    certificates: tuple[Certificate, ...]
    anchors: TrustAnchors
    now: datetime = datetime(2025, 12, 1, tzinfo=UTC)

    def path(self, name: str) -> Path:
        return self.store.path(name)

    def read(self, name: str) -> bytes:
        return self.store.read(name)

    def report(self, identifier: str) -> bytes:
        return self.read(f"reports/{identifier}/report.bin")

    def leaf(self, identifier: str, name: str = "vek.der") -> Certificate:
        return parse_certificate(self.read(f"reports/{identifier}/{name}"))

    def first(self, *identifiers: str) -> str:
        """The first of these reports that is at hand, for a test to which any of them would do."""
        return self.store.first(*(f"reports/{each}" for each in identifiers)).removeprefix("reports/")

    def crl(self, name: str) -> RevocationList:
        return parse_crl(self.read(f"crl/{name}"))

    def appraise(
        self,
        report: bytes | Evidence,
        leaf: Certificate | None,
        *,
        crls: tuple[RevocationList, ...] = (),
        now: datetime | None = None,
        expectation: Expectation | None = None,
        anchors: TrustAnchors | None = None,
        certificates: tuple[Certificate, ...] | None = None,
    ) -> AttestationResult:
        """Appraise with AMD's chains; revocation is not demanded unless the expectation says so."""
        evidence = report if isinstance(report, Evidence) else from_raw(report)
        return appraise(
            evidence,
            Endorsements(leaf, self.certificates if certificates is None else certificates, crls),
            self.anchors if anchors is None else anchors,
            self.now if now is None else now,
            Expectation(revocation=SOFT_CRL) if expectation is None else expectation,
        )


@pytest.fixture(scope="session")
def vectors() -> Vectors:
    found = store(lambda _line: None)
    files = sorted(found.path("roots").iterdir())
    certificates = tuple(certificate for file in files for certificate in parse_certificates(file.read_bytes()))
    return Vectors(found, certificates, amd_trust_anchors(certificates))


def name_of(common_name: str) -> x509.Name:
    """AMD's distinguished names."""
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "Engineering"),
            x509.NameAttribute(NameOID.COUNTRY_NAME, "US"),
            x509.NameAttribute(NameOID.LOCALITY_NAME, "Santa Clara"),
            x509.NameAttribute(NameOID.STATE_OR_PROVINCE_NAME, "CA"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Advanced Micro Devices"),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def pss(salt: int) -> padding.PSS:
    return padding.PSS(padding.MGF1(SHA384), salt)


def der(tag: int, body: bytes) -> bytes:
    size = len(body)
    length = bytes([size]) if size < 0x80 else bytes([0x82]) + struct.pack(">H", size)
    return bytes([tag]) + length + body


@functools.cache
def rsa_key(name: str) -> rsa.RSAPrivateKey:
    """One 4,096-bit key a name and process: making one takes about a second."""
    return rsa.generate_private_key(65537, 4096)


def serial_zero(certificate: x509.Certificate, key: rsa.RSAPrivateKey) -> bytes:
    """The same certificate with serial number 0, which the library reads but does not write. Signed anew."""
    tbs = certificate.tbs_certificate_bytes
    assert b"\xa0\x03\x02\x01\x02\x02\x01\x01" in tbs
    changed = tbs.replace(b"\xa0\x03\x02\x01\x02\x02\x01\x01", b"\xa0\x03\x02\x01\x02\x02\x01\x00", 1)
    at = changed.index(b"\x02\x01\x00") + 3
    algorithm = changed[at : at + 2 + changed[at + 1]]
    signature = key.sign(changed, pss(48), SHA384)
    return der(0x30, changed + algorithm + der(0x03, b"\0" + signature))


KEY_USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)
CPUIDS = {"Milan": (0x19, 0x01, 1), "Genoa": (0x19, 0x11, 1), "Turin": (0x1A, 0x02, 1), "Simulated": (0xFF, 0xFF, 0)}


@dataclass(frozen=True)
class Platform:
    """A self-made hierarchy and one chip of a product line. Everything can be bent by keyword."""

    line: ProductLine
    now: datetime = datetime(2026, 6, 1, tzinfo=UTC)

    @property
    def tcb(self) -> Tcb:
        return Tcb(bootloader=3, tee=0, snp=8, microcode=115, fmc=1 if self.line.tcb_layout == "turin" else None)

    @property
    def chip_id(self) -> bytes:
        return bytes(range(1, self.line.chip_id_size + 1))

    def unsigned(
        self, subject: x509.Name, issuer: x509.Name, key: Any, serial: int, *, since: int, until: int
    ) -> x509.CertificateBuilder:
        """A certificate that is valid from `since` days before now until `until` days after it."""
        times = {"since": self.now - timedelta(days=since), "until": self.now + timedelta(days=until)}
        return builder(subject, issuer, key, serial=serial, **times)

    def authority(self, subject: str, issuer: str, key: str, signer: str, serial: int, **bent: Any) -> Certificate:
        usage = dict.fromkeys(KEY_USAGES, False) | {"key_cert_sign": True}
        usage["crl_sign"] = subject == issuer
        path_length = bent.get("path_length", None if subject == issuer else 0)
        built = (
            self.unsigned(
                name_of(subject),
                name_of(issuer),
                bent.get("public_key") or rsa_key(key).public_key(),
                serial,
                since=bent.get("since", 1000),
                until=bent.get("until", 1000),
            )
            .add_extension(x509.BasicConstraints(bent.get("ca", True), path_length), critical=True)
            .add_extension(x509.KeyUsage(**usage), critical=True)
            .sign(rsa_key(signer), SHA384, rsa_padding=pss(bent.get("salt", 48)))
        )
        return parse_certificate(built.public_bytes(Encoding.DER))

    @functools.cached_property
    def ark(self) -> Certificate:
        return self.authority(self.line.ark_name, self.line.ark_name, "ark", "ark", 65536)

    def ask(self, **bent: Any) -> Certificate:
        name = self.line.intermediate_name(vlek=False)
        return self.authority(
            name, self.line.ark_name, bent.pop("key", "ask"), "ark", bent.pop("serial", 65537), **bent
        )

    def asvk(self, **bent: Any) -> Certificate:
        name = self.line.intermediate_name(vlek=True)
        return self.authority(
            name, self.line.ark_name, bent.pop("key", "asvk"), "ark", bent.pop("serial", 65793), **bent
        )

    @functools.cached_property
    def anchors(self) -> TrustAnchors:
        return TrustAnchors({self.line.name: self.ark.sha256}, {self.line.name: self.ark})

    def leaf(self, *, vlek: bool = False, **bent: Any) -> tuple[Certificate, ec.EllipticCurvePrivateKey]:
        """A VCEK or VLEK with its key. Bent by: curve, salt, serial, signer, issuer, subject, tcb, spl, hwid, …"""
        key = ec.generate_private_key(bent.get("curve", ec.SECP384R1()))
        signer = rsa_key(bent.get("signer", "asvk" if vlek else "ask"))
        tcb: Tcb = bent.get("tcb", self.tcb)
        product = bent.get("product", self.line.name)
        extensions: dict[str, bytes | None] = {
            OID_STRUCT_VERSION: b"\x02\x01\x00",
            OID_PRODUCT_NAME: b"\x16" + bytes([len(product)]) + product.encode(),
            OID_HWID: None if vlek else bent.get("hwid", self.chip_id),
            OID_CSP_ID: b"\x16\x07CN=test" if bent.get("csp", vlek) else None,
        }
        for name, version in (tcb.as_dict() | bent.get("spl", {})).items():
            extensions[OID_SPL[name]] = bytes([2, 1, version]) if version < 0x80 else bytes([2, 2, 0, version])
        if vlek and "hwid" in bent:
            extensions[OID_HWID] = bent["hwid"]
        unsigned = self.unsigned(
            name_of(bent.get("subject", "SEV-VLEK" if vlek else "SEV-VCEK")),
            name_of(bent.get("issuer", self.line.intermediate_name(vlek=vlek))),
            key.public_key(),
            bent.get("serial", 1),
            since=bent.get("since", 100),
            until=bent.get("until", 100),
        )
        for oid, value in extensions.items():
            if value is not None:
                unsigned = unsigned.add_extension(x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value), False)
        built = unsigned.sign(signer, SHA384, rsa_padding=pss(bent.get("salt", 48)))
        if bent.get("serial", 0) == 0 and bent.get("salt", 48) == 48:
            return parse_certificate(serial_zero(built, signer)), key
        return parse_certificate(built.public_bytes(Encoding.DER)), key

    def report(self, key: ec.EllipticCurvePrivateKey, *, vlek: bool = False, **bent: Any) -> bytes:
        """A report signed by the key; bent by any field of `abi.Report`, or `patch`: offset -> bytes before signing."""
        patch: dict[int, bytes] = bent.pop("patch", {})
        tcb = encode_tcb(self.tcb, self.line.tcb_layout)
        family, model, step = CPUIDS[self.line.name]
        values: dict[str, int | bytes] = {
            "version": 3,
            "guest_svn": 0,
            "policy": 0x30000,
            "family_id": bytes(16),
            "image_id": bytes(16),
            "vmpl": 0,
            "signature_algo": 1,
            "current_tcb": tcb,
            "platform_info": 0x25,
            "key_info": 4 if vlek else 0,
            "report_data": b"d" * 64,
            "measurement": b"m" * 48,
            "host_data": b"h" * 32,
            "id_key_digest": bytes(48),
            "author_key_digest": bytes(48),
            "report_id": b"r" * 32,
            "report_id_ma": b"\xff" * 32,
            "reported_tcb": tcb,
            "cpuid_fam_id": family,
            "cpuid_mod_id": model,
            "cpuid_step": step,
            "chip_id": bytes(64) if vlek else self.chip_id.ljust(64, b"\0"),
            "committed_tcb": tcb,
            "current_build": 40,
            "current_minor": 55,
            "current_major": 1,
            "committed_build": 40,
            "committed_minor": 55,
            "committed_major": 1,
            "launch_tcb": tcb,
            "launch_mit_vector": 0,
            "current_mit_vector": 0,
            "signature_r": bytes(72),
            "signature_s": bytes(72),
        }
        raw = bytearray(encode_report(values | bent))
        for offset, data in patch.items():
            raw[offset : offset + len(data)] = data
        if isinstance(key.curve, ec.SECP384R1):
            r, s = decode_dss_signature(key.sign(bytes(raw[:SIGNED_SIZE]), ec.ECDSA(SHA384)))
            raw[0x2A0:0x2E8] = r.to_bytes(72, "little")
            raw[0x2E8:0x330] = s.to_bytes(72, "little")
        return bytes(raw)

    def crl(self, serials: Iterable[int] = (), *, since: int = 10, until: int = 300, **bent: Any) -> RevocationList:
        unsigned = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(name_of(bent.get("issuer", self.line.ark_name)))
            .last_update(self.now - timedelta(days=since))
            .next_update(self.now + timedelta(days=until))
        )
        for serial in serials:
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(self.now)
            unsigned = unsigned.add_revoked_certificate(entry.build())
        built = unsigned.sign(rsa_key(bent.get("signer", "ark")), SHA384, rsa_padding=pss(bent.get("salt", 48)))
        return parse_crl(built.public_bytes(Encoding.DER), for_vleks=bent.get("vlek", False))

    def appraise(
        self,
        report: bytes | Evidence,
        leaf: Certificate | None,
        *,
        intermediates: tuple[Certificate, ...] | None = None,
        crls: tuple[RevocationList, ...] | None = None,
        expectation: Expectation | None = None,
        anchors: TrustAnchors | None = None,
        now: datetime | None = None,
    ) -> AttestationResult:
        """Appraise under this hierarchy with fresh, empty revocation lists unless told otherwise."""
        return appraise(
            report if isinstance(report, Evidence) else from_raw(report),
            Endorsements(
                leaf,
                (_default_ask(self), _default_asvk(self)) if intermediates is None else intermediates,
                _default_crls(self) if crls is None else crls,
            ),
            self.anchors if anchors is None else anchors,
            self.now if now is None else now,
            Expectation() if expectation is None else expectation,
        )


_default_ask = functools.cache(lambda platform: platform.ask())
_default_asvk = functools.cache(lambda platform: platform.asvk())
_default_crls = functools.cache(lambda platform: (platform.crl(), platform.crl(vlek=True)))


@pytest.fixture(scope="session")
def platform_of() -> Callable[[str], Platform]:
    """Line name -> our own platform of that line."""

    @functools.cache
    def make(name: str) -> Platform:
        line = line_by_name(name)
        assert line is not None
        return Platform(line)

    return make


@pytest.fixture(scope="session")
def milan(platform_of: Callable[[str], Platform]) -> Platform:
    return platform_of("Milan")


@pytest.fixture(scope="session")
def failed() -> Callable[[AttestationResult], list[str]]:
    """The ids of the failed checks; the result must refuse."""

    def ids(result: AttestationResult) -> list[str]:
        assert not result.accepted
        return [check.id for check in result.failed]

    return ids
