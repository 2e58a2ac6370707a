"""Guest reference values as plain data: what a guest must look like to be accepted.

Both the verifier and the sidecar appraise, so this module needs the standard library alone. `server.guest_entries`
reads what operators write and yields these types; `attestation.appraisal` compares a report with them.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final, NamedTuple

_MILAN_TCB = ("bootloader", "tee", "snp", "microcode")

# Product line -> the components of its TCB. A test holds this against `attestation.report.products`.
TCB_COMPONENTS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "Milan": _MILAN_TCB,
        "Genoa": _MILAN_TCB,
        "Turin": ("fmc", *_MILAN_TCB),
        "Simulated": _MILAN_TCB,
    }
)
# Bits of PLATFORM_INFO by name. A test holds this against `attestation.report.abi`.
PLATFORM_INFO_BITS: Final[Mapping[str, int]] = MappingProxyType(
    {
        "SMT_EN": 0,
        "TSME_EN": 1,
        "ECC_EN": 2,
        "RAPL_DIS": 3,
        "CIPHERTEXT_HIDING_DRAM_EN": 4,
        "ALIAS_CHECK_COMPLETE": 5,
        "TIO_EN": 7,
    }
)
OLDEST_REPORT_VERSION: Final = 2
NEWEST_REPORT_VERSION: Final = 5


class RevocationAction(StrEnum):
    """What to do about a missing or stale revocation list."""

    REFUSE = "refuse"
    ACCEPT = "accept"


class RevocationPolicy(NamedTuple):
    """A revoked certificate and a forged list are refused always; only these two are a choice."""

    missing: RevocationAction = RevocationAction.REFUSE
    stale: RevocationAction = RevocationAction.REFUSE


REQUIRE_CRL: Final = RevocationPolicy()
SOFT_CRL: Final = RevocationPolicy(RevocationAction.ACCEPT, RevocationAction.ACCEPT)


class TcbFloor(NamedTuple):
    """The least security version of each firmware component, 0 to 255. `fmc` is None before Turin."""

    bootloader: int
    tee: int
    snp: int
    microcode: int
    fmc: int | None = None


class RequiredGuestPolicy(NamedTuple):
    """What the report's POLICY may and must say. DEBUG has no switch: such a guest is never accepted.

    `exact`: POLICY equals this value. `smt`, `migrate_ma`, `cxl_allow`: True allows the bit, False forbids it.
    The others: True requires the bit. `min_abi`: (major, minor).
    """

    exact: int | None = None
    smt: bool = True
    migrate_ma: bool = False
    cxl_allow: bool = False
    single_socket: bool = False
    mem_aes_256_xts: bool = False
    rapl_dis: bool = False
    ciphertext_hiding_dram: bool = False
    page_swap_disable: bool = False
    min_abi: tuple[int, int] = (0, 0)


class GuestReference(NamedTuple):
    """One named guest. None for a set means "not looked at"; an empty set never occurs except in `measurements`.

    `product`: the product line's name, a key of TCB_COMPONENTS. Digests are raw bytes: `measurements`, `id_keys` and
    `author_keys` 48, `host_data` 32, `chip_ids` 64. `platform_require` and `platform_forbid` are masks over
    PLATFORM_INFO, the mitigation masks over *_MIT_VECTOR. `csp_ids`: providers whose VLEKs count; empty accepts
    none. `min_firmware`: (major, minor, build). `revocation` None leaves that to the caller.
    """

    name: str
    product: str
    measurements: frozenset[bytes]
    min_tcb: TcbFloor
    min_committed_tcb: TcbFloor
    min_launch_tcb: TcbFloor
    policy: RequiredGuestPolicy = RequiredGuestPolicy()
    vmpl: frozenset[int] = frozenset({0})
    host_data: frozenset[bytes] | None = None
    id_keys: frozenset[bytes] | None = None
    author_keys: frozenset[bytes] | None = None
    family_id: bytes | None = None
    image_id: bytes | None = None
    min_guest_svn: int = 0
    chip_ids: frozenset[bytes] | None = None
    masked_chip_id: bool = False
    signing_keys: frozenset[str] = frozenset({"VCEK"})
    csp_ids: frozenset[str] = frozenset()
    platform_require: int = 0
    platform_forbid: int = 0
    launch_mitigations: int = 0
    current_mitigations: int = 0
    min_firmware: tuple[int, int, int] | None = None
    provisional_firmware: bool = True
    min_version: int = 3
    max_version: int = NEWEST_REPORT_VERSION
    revocation: RevocationPolicy | None = None
