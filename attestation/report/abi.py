"""ATTESTATION_REPORT: what the 1,184 bytes say (AMD 56860, "SEV-SNP ABI", table ATTESTATION_REPORT).

Names are AMD's in lower case; integers are little-endian. Parsing never decides: every field is readable whatever its
value, `nonzero_reserved` tells which must-be-zero bytes are set, and versions after the newest known one parse too.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple

from attestation.errors import FormatError

REPORT_SIZE = 0x4A0
SIGNED_SIZE = 0x2A0
SIGNATURE_COMPONENT_SIZE = 72  # R and S: 48 bytes of value, 24 of zero
SIGNATURE_ALGORITHM_P384_SHA384 = 1
OLDEST_VERSION = 2
NEWEST_VERSION = 5
CPUID_VERSION = 3  # CPUID_FAM_ID, CPUID_MOD_ID and CPUID_STEP exist from this version on
MITIGATION_VERSION = 5  # LAUNCH_MIT_VECTOR and CURRENT_MIT_VECTOR exist from this version on
NO_MIGRATION_AGENT = b"\xff" * 32


class SigningKey(IntEnum):
    """KEY_INFO bits 4:2; 2 to 6 are reserved and have no name here."""

    VCEK = 0
    VLEK = 1
    NONE = 7


class FirmwareVersion(NamedTuple):
    """A firmware version, comparable: 1.55.40 is FirmwareVersion(1, 55, 40)."""

    major: int
    minor: int
    build: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.build}"


class GuestPolicy(NamedTuple):
    """POLICY: what the guest's owner demanded at launch and firmware enforces (AMD 56860, table "Guest Policy")."""

    value: int

    def _bit(self, number: int) -> bool:
        return bool(self.value >> number & 1)

    @property
    def abi_minor(self) -> int:
        return self.value & 0xFF

    @property
    def abi_major(self) -> int:
        return self.value >> 8 & 0xFF

    @property
    def smt(self) -> bool:
        """SMT is allowed."""
        return self._bit(16)

    @property
    def reserved_one(self) -> bool:
        """Bit 17, which must be one."""
        return self._bit(17)

    @property
    def migrate_ma(self) -> bool:
        """Association with a migration agent is allowed."""
        return self._bit(18)

    @property
    def debug(self) -> bool:
        """The host may decrypt the guest's memory."""
        return self._bit(19)

    @property
    def single_socket(self) -> bool:
        """The guest may run on one socket only."""
        return self._bit(20)

    @property
    def cxl_allow(self) -> bool:
        return self._bit(21)

    @property
    def mem_aes_256_xts(self) -> bool:
        """AES-256-XTS memory encryption is required."""
        return self._bit(22)

    @property
    def rapl_dis(self) -> bool:
        """Running average power limit must be off."""
        return self._bit(23)

    @property
    def ciphertext_hiding_dram(self) -> bool:
        """Ciphertext hiding must be on."""
        return self._bit(24)

    @property
    def page_swap_disable(self) -> bool:
        return self._bit(25)

    @property
    def reserved(self) -> int:
        """Bits 63:26, which must be zero."""
        return self.value >> 26


# PLATFORM_INFO bit -> name. Unknown bits are no failure: real Turin machines set bit 6, which the ABI reserves.
PLATFORM_INFO_BITS: dict[str, int] = {
    "SMT_EN": 0,
    "TSME_EN": 1,
    "ECC_EN": 2,
    "RAPL_DIS": 3,
    "CIPHERTEXT_HIDING_DRAM_EN": 4,
    "ALIAS_CHECK_COMPLETE": 5,
    "TIO_EN": 7,
}


def platform_info_names(value: int) -> tuple[str, ...]:
    """The names of the set bits of PLATFORM_INFO; unknown ones as "bit 6"."""
    by_bit = {bit: name for name, bit in PLATFORM_INFO_BITS.items()}
    return tuple(by_bit.get(bit, f"bit {bit}") for bit in range(64) if value >> bit & 1)


class Report(NamedTuple):
    """One report, field by field. Digests and ids are raw bytes; TCBs are eight raw bytes (`tcb.decode_tcb`).

    `signature_r` and `signature_s` are 72 bytes each, little-endian, as transmitted. `raw` is what was parsed: the
    signature covers `raw[:SIGNED_SIZE]` and is never checked over anything re-encoded.
    """

    version: int
    guest_svn: int
    policy: int
    family_id: bytes
    image_id: bytes
    vmpl: int
    signature_algo: int
    current_tcb: bytes
    platform_info: int
    key_info: int
    report_data: bytes
    measurement: bytes
    host_data: bytes
    id_key_digest: bytes
    author_key_digest: bytes
    report_id: bytes
    report_id_ma: bytes
    reported_tcb: bytes
    cpuid_fam_id: int
    cpuid_mod_id: int
    cpuid_step: int
    chip_id: bytes
    committed_tcb: bytes
    current_build: int
    current_minor: int
    current_major: int
    committed_build: int
    committed_minor: int
    committed_major: int
    launch_tcb: bytes
    launch_mit_vector: int
    current_mit_vector: int
    signature_r: bytes
    signature_s: bytes
    raw: bytes

    @property
    def signed(self) -> bytes:
        """The bytes the signature covers."""
        return self.raw[:SIGNED_SIZE]

    @property
    def author_key_en(self) -> bool:
        """AUTHOR_KEY_DIGEST is the digest of the key that signed the ID key."""
        return bool(self.key_info & 1)

    @property
    def mask_chip_key(self) -> bool:
        """The host asked firmware not to sign: SIGNATURE is zero."""
        return bool(self.key_info >> 1 & 1)

    @property
    def signing_key(self) -> int:
        """KEY_INFO bits 4:2, see SigningKey."""
        return self.key_info >> 2 & 0b111

    @property
    def has_cpuid(self) -> bool:
        return self.version >= CPUID_VERSION

    @property
    def current_firmware(self) -> FirmwareVersion:
        return FirmwareVersion(self.current_major, self.current_minor, self.current_build)

    @property
    def committed_firmware(self) -> FirmwareVersion:
        return FirmwareVersion(self.committed_major, self.committed_minor, self.committed_build)


# name -> (offset, struct format)
LAYOUT: dict[str, tuple[int, str]] = {
    "version": (0x000, "I"),
    "guest_svn": (0x004, "I"),
    "policy": (0x008, "Q"),
    "family_id": (0x010, "16s"),
    "image_id": (0x020, "16s"),
    "vmpl": (0x030, "I"),
    "signature_algo": (0x034, "I"),
    "current_tcb": (0x038, "8s"),
    "platform_info": (0x040, "Q"),
    "key_info": (0x048, "I"),
    "report_data": (0x050, "64s"),
    "measurement": (0x090, "48s"),
    "host_data": (0x0C0, "32s"),
    "id_key_digest": (0x0E0, "48s"),
    "author_key_digest": (0x110, "48s"),
    "report_id": (0x140, "32s"),
    "report_id_ma": (0x160, "32s"),
    "reported_tcb": (0x180, "8s"),
    "cpuid_fam_id": (0x188, "B"),
    "cpuid_mod_id": (0x189, "B"),
    "cpuid_step": (0x18A, "B"),
    "chip_id": (0x1A0, "64s"),
    "committed_tcb": (0x1E0, "8s"),
    "current_build": (0x1E8, "B"),
    "current_minor": (0x1E9, "B"),
    "current_major": (0x1EA, "B"),
    "committed_build": (0x1EC, "B"),
    "committed_minor": (0x1ED, "B"),
    "committed_major": (0x1EE, "B"),
    "launch_tcb": (0x1F0, "8s"),
    "launch_mit_vector": (0x1F8, "Q"),
    "current_mit_vector": (0x200, "Q"),
    "signature_r": (0x2A0, "72s"),
    "signature_s": (0x2E8, "72s"),
}
# Of the fields that are bytes.
SIZES: dict[str, int] = {name: int(form[:-1]) for name, (_, form) in LAYOUT.items() if form.endswith("s")}
# Must be zero in versions 2 to 5: [first, last).
_RESERVED: tuple[tuple[int, int], ...] = (
    (0x04C, 0x050),
    (0x18B, 0x1A0),
    (0x1EB, 0x1EC),
    (0x1EF, 0x1F0),
    (0x208, 0x2A0),
    (0x330, 0x4A0),
)
_KEY_INFO_RESERVED = 0xFFFFFFFF << 5 & 0xFFFFFFFF


def _whole_format() -> struct.Struct:
    parts, at = ["<"], 0
    for offset, form in LAYOUT.values():
        parts.append(f"{offset - at}x{form}")
        at = offset + struct.calcsize("<" + form)
    parts.append(f"{REPORT_SIZE - at}x")
    return struct.Struct("".join(parts))


_FORMAT = _whole_format()
_NAMES = Report._fields[:-1]


def parse_report(raw: bytes) -> Report:
    """Parse exactly 1,184 bytes. Raises FormatError for another size or a version below 2."""
    if len(raw) != REPORT_SIZE:
        raise FormatError(f"report has {len(raw)} bytes, required {REPORT_SIZE}")
    report = Report(*(*_FORMAT.unpack(raw), bytes(raw)))
    if report.version < OLDEST_VERSION:
        raise FormatError(f"report version is {report.version}, required {OLDEST_VERSION} or later")
    return report


def encode_report(values: dict[str, int | bytes]) -> bytes:
    """1,184 bytes from field values (the names of `Report` without `raw`), reserved ones zero.

    Only for writers that pass fields instead of bytes (CoCo's JSON) and for making reports.
    Raises FormatError for a missing field, a wrong length or an integer out of range.
    """
    for name in _NAMES:
        if name not in values:
            raise FormatError(f"report field {name} is missing")
    for name, size in SIZES.items():
        value = values[name]
        if not isinstance(value, bytes) or len(value) != size:
            raise FormatError(f"report field {name} is not {size} bytes")
    try:
        return _FORMAT.pack(*(values[name] for name in _NAMES))
    except struct.error as error:
        raise FormatError(f"a report field is out of range: {error}") from None


def nonzero_reserved(report: Report) -> tuple[str, ...]:
    """The must-be-zero places of this report's version that are not, as hexadecimal ranges; empty is right.

    Versions after the newest known one may have given these bytes a meaning, so nothing is said about them.
    """
    if report.version > NEWEST_VERSION:
        return ()
    ranges = list(_RESERVED)
    if report.version < CPUID_VERSION:
        ranges.append((0x188, 0x18B))
    if report.version < MITIGATION_VERSION:
        ranges.append((0x1F8, 0x208))
    found = [f"0x{first:03x}..0x{last - 1:03x}" for first, last in ranges if report.raw[first:last].strip(b"\0")]
    if report.key_info & _KEY_INFO_RESERVED:
        found.append("KEY_INFO bits 31:5")
    return tuple(sorted(found))
