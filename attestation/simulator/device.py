"""The simulated machine: one guest on one chip, and reports about it signed by the chip's key."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha384

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from attestation.report.abi import (
    LAYOUT,
    NEWEST_VERSION,
    NO_MIGRATION_AGENT,
    PLATFORM_INFO_BITS,
    SIGNATURE_ALGORITHM_P384_SHA384,
    SIGNATURE_COMPONENT_SIZE,
    SIGNED_SIZE,
    encode_report,
)
from attestation.report.certificate_table import TableEntry, encode_certificate_table
from attestation.report.products import SIMULATED
from attestation.report.tcb import encode_tcb
from attestation.simulator.hierarchy import TCB, Hierarchy

DEFAULT_MEASUREMENT = sha384(b"morphisms simulated guest").digest()
DEFAULT_HOST_DATA = bytes(32)
_POLICY = 0x30000  # SMT allowed and the bit that must be one: what KVM and CoCo ask for
_DEBUG = 1 << 19
_PLATFORM_INFO = sum(1 << PLATFORM_INFO_BITS[name] for name in ("SMT_EN", "ECC_EN", "ALIAS_CHECK_COMPLETE"))
_FIRMWARE = {"major": 1, "minor": 55, "build": 49}
_MITIGATIONS = 0xB


class Tamper(StrEnum):
    """One thing that a verifier must notice."""

    MEASUREMENT = "measurement"  # a bit of MEASUREMENT flipped after signing
    SIGNATURE = "signature"  # a bit of the signature flipped
    TCB = "tcb"  # truly signed, but REPORTED_TCB is another one than the certificate's
    DEBUG = "debug"  # truly signed, of a guest whose memory the host may read


@dataclass(frozen=True)
class Device:
    """`measurement` has 48 bytes, `host_data` 32. `report_id` is new for every launch, as firmware has it."""

    hierarchy: Hierarchy
    measurement: bytes = DEFAULT_MEASUREMENT
    host_data: bytes = DEFAULT_HOST_DATA
    tamper: Tamper | None = None
    report_id: bytes = field(default_factory=lambda: secrets.token_bytes(32))

    def report(self, report_data: bytes) -> bytes:
        """1,184 bytes about this guest that bind 64 bytes. Raises FormatError for another length."""
        raw = bytearray(encode_report(self._values(report_data)))
        r, s = decode_dss_signature(self.hierarchy.vcek_key.sign(bytes(raw[:SIGNED_SIZE]), ec.ECDSA(hashes.SHA384())))
        for name, number in (("signature_r", r), ("signature_s", s)):
            at = LAYOUT[name][0]
            raw[at : at + SIGNATURE_COMPONENT_SIZE] = number.to_bytes(SIGNATURE_COMPONENT_SIZE, "little")
        if self.tamper is Tamper.MEASUREMENT:
            raw[LAYOUT["measurement"][0]] ^= 1
        if self.tamper is Tamper.SIGNATURE:
            raw[LAYOUT["signature_r"][0]] ^= 1
        return bytes(raw)

    def certificate_table(self) -> bytes:
        """What a host would hand out beside: VCEK and ASK. The root is not in it."""
        chain = (TableEntry("VCEK", self.hierarchy.vcek.der), TableEntry("ASK", self.hierarchy.ask.der))
        return encode_certificate_table(chain)

    def _values(self, report_data: bytes) -> dict[str, int | bytes]:
        tcb = encode_tcb(TCB, SIMULATED.tcb_layout)
        reported = tcb
        if self.tamper is Tamper.TCB:
            reported = encode_tcb(TCB._replace(snp=TCB.snp - 1), SIMULATED.tcb_layout)
        family, model, _ = SIMULATED.cpuid[0]
        values: dict[str, int | bytes] = {
            "version": NEWEST_VERSION,
            "guest_svn": 0,
            "policy": _POLICY | (_DEBUG if self.tamper is Tamper.DEBUG else 0),
            "family_id": bytes(16),
            "image_id": bytes(16),
            "vmpl": 0,
            "signature_algo": SIGNATURE_ALGORITHM_P384_SHA384,
            "current_tcb": tcb,
            "platform_info": _PLATFORM_INFO,
            "key_info": 0,
            "report_data": report_data,
            "measurement": self.measurement,
            "host_data": self.host_data,
            "id_key_digest": bytes(48),
            "author_key_digest": bytes(48),
            "report_id": self.report_id,
            "report_id_ma": NO_MIGRATION_AGENT,
            "reported_tcb": reported,
            "cpuid_fam_id": family,
            "cpuid_mod_id": model,
            "cpuid_step": 0,
            "chip_id": self.hierarchy.vcek.vek.hwid or bytes(64),
            "committed_tcb": tcb,
            "launch_tcb": tcb,
            "launch_mit_vector": _MITIGATIONS,
            "current_mit_vector": _MITIGATIONS,
            "signature_r": bytes(SIGNATURE_COMPONENT_SIZE),
            "signature_s": bytes(SIGNATURE_COMPONENT_SIZE),
        }
        for which in ("current", "committed"):
            values |= {f"{which}_{part}": number for part, number in _FIRMWARE.items()}
        return values
