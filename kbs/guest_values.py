"""Guest reference values as JSON, for documents that a guest reads: signed references, and `verifier.attest` of a plan.

The names and meanings are those of operators' guest entries (docs/reference.md), in one spelling each: digests in
lower-case hex, numbers as numbers, versions as lists of them, 64-bit masks as text like 0x30000 (numbers of JSON are
exact only up to 53 bits). A member that says what holds without it may be left out,
and `write_guest` leaves it out. An unknown member is refused: a reader that passed over one would accept more than the
writer meant. Operators' own files are read by `server.guest_entries`, which no guest carries.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from kbs.reference_values import (
    NEWEST_REPORT_VERSION,
    OLDEST_REPORT_VERSION,
    TCB_COMPONENTS,
    GuestReference,
    RequiredGuestPolicy,
    RevocationAction,
    RevocationPolicy,
    TcbFloor,
)

T = TypeVar("T")
Reader = Callable[[object, str], T]
"""Turns a member's value, named for errors, into the plain type. Raises GuestValuesError."""

_HEX: Final = re.compile("[0-9a-f]*")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_MASK: Final = re.compile("0x(0|[1-9a-f][0-9a-f]{0,15})")
_CSP: Final = re.compile(r"[ -~]{1,256}")
_MOST: Final = 256  # entries of a list
_OLDEST_WITH_CPUID: Final = 3
_DEBUG: Final = 1 << 19  # SNP Firmware ABI Specification (56860), 4.3
_MUST_BE_ONE: Final = 1 << 17
_FIRST_RESERVED: Final = 26
# Member of `policy` -> field of RequiredGuestPolicy.
_POLICY_BITS: Final = {
    "smt": "smt",
    "migrateMa": "migrate_ma",
    "cxlAllow": "cxl_allow",
    "singleSocket": "single_socket",
    "memAes256Xts": "mem_aes_256_xts",
    "raplDis": "rapl_dis",
    "ciphertextHidingDram": "ciphertext_hiding_dram",
    "pageSwapDisable": "page_swap_disable",
}


class GuestValuesError(ValueError):
    """Not guest values. The text names the member and what is wrong with it, and repeats no value."""


class Members:
    """The members of an object, each read once; `end` refuses those that nobody has read."""

    def __init__(self, value: object, where: str) -> None:
        if not isinstance(value, dict):
            raise GuestValuesError(f"{where}: not an object")
        self._left: dict[str, object] = dict(value)
        self._where = where

    def take(self, name: str, read: Reader[T]) -> T:
        """The member, which must be there. Raises GuestValuesError."""
        if name not in self._left:
            raise GuestValuesError(f"{self._where}.{name}: missing")
        return read(self._left.pop(name), f"{self._where}.{name}")

    def get(self, name: str, read: Reader[T], default: T) -> T:
        """The member, or `default` where it is left out. Raises GuestValuesError."""
        return self.take(name, read) if name in self._left else default

    def end(self) -> None:
        """Raises GuestValuesError for a member that has not been read."""
        for name in self._left:
            # The name is the writer's, of any length and script.
            raise GuestValuesError(f"{self._where}: unknown member {name[:32]!a}")


def read_guest(name: str, value: object) -> GuestReference:
    """The guest of this name. Raises GuestValuesError."""
    if not is_guest_name(name):
        raise GuestValuesError("a guest's name is not 1 to 63 letters, digits, . _ -, such as kms-1")
    members = Members(value, name)
    guest = read_guest_members(name, members)
    members.end()
    return guest


def is_guest_name(text: str) -> bool:
    """The text can be a guest's name."""
    return _NAME.fullmatch(text) is not None


def read_guest_members(name: str, members: Members) -> GuestReference:
    """As `read_guest`, from an object that has other members too, which stay unread. Raises GuestValuesError."""
    product = members.take("product", _product)
    tcb = _tcb(TCB_COMPONENTS[product])
    floor = members.take("minTcb", tcb)
    require, forbid = members.get("platformInfo", _two_masks("require", "forbid"), (0, 0))
    launch, current = members.get("mitigations", _two_masks("launch", "current"), (0, 0))
    oldest, newest = members.get("versions", _versions, (_OLDEST_WITH_CPUID, NEWEST_REPORT_VERSION))
    guest = GuestReference(
        name=name,
        product=product,
        measurements=members.take("measurements", digests(48)),
        min_tcb=floor,
        min_committed_tcb=members.get("minCommittedTcb", tcb, floor),
        min_launch_tcb=members.get("minLaunchTcb", tcb, floor),
        policy=members.take("policy", _policy),
        vmpl=members.take("vmpl", _vmpl),
        host_data=members.get("hostData", _optional(digests(32)), None),
        id_keys=members.get("idKeys", _optional(digests(48)), None),
        author_keys=members.get("authorKeys", _optional(digests(48)), None),
        family_id=members.get("familyId", _optional(digest(16)), None),
        image_id=members.get("imageId", _optional(digest(16)), None),
        min_guest_svn=members.get("minGuestSvn", number(32), 0),
        chip_ids=members.get("chipIds", _optional(digests(64)), None),
        masked_chip_id=members.get("maskedChipId", boolean, False),
        signing_keys=members.get("signingKeys", _signing_keys, frozenset({"VCEK"})),
        csp_ids=members.get("cspIds", _csp_ids, frozenset()),
        platform_require=require,
        platform_forbid=forbid,
        launch_mitigations=launch,
        current_mitigations=current,
        min_firmware=members.get("minFirmware", _optional(_numbers(3)), None),
        provisional_firmware=members.get("provisionalFirmware", boolean, True),
        min_version=oldest,
        max_version=newest,
        revocation=members.get("crl", _optional(_revocation), None),
    )
    if ("VLEK" in guest.signing_keys) != bool(guest.csp_ids):
        raise GuestValuesError(f"{name}.cspIds: required with signingKeys VLEK, and only with it")
    return guest


def write_guest(guest: GuestReference) -> dict[str, Any]:
    """JSON-ready; `read_guest` reads it back. `measurements` must not be empty."""
    floor = guest.min_tcb
    written: dict[str, Any] = {
        "product": guest.product,
        "measurements": _hex(guest.measurements),
        "minTcb": _write_tcb(floor),
        "policy": _write_policy(guest.policy),
        "vmpl": sorted(guest.vmpl),
    }
    platform = {"require": hex(guest.platform_require), "forbid": hex(guest.platform_forbid)}
    mitigations = {"launch": hex(guest.launch_mitigations), "current": hex(guest.current_mitigations)}
    versions = {"min": guest.min_version, "max": guest.max_version}
    crl = guest.revocation
    optional: dict[str, tuple[bool, Any]] = {
        "minCommittedTcb": (guest.min_committed_tcb != floor, _write_tcb(guest.min_committed_tcb)),
        "minLaunchTcb": (guest.min_launch_tcb != floor, _write_tcb(guest.min_launch_tcb)),
        "hostData": (guest.host_data is not None, _hex(guest.host_data or ())),
        "idKeys": (guest.id_keys is not None, _hex(guest.id_keys or ())),
        "authorKeys": (guest.author_keys is not None, _hex(guest.author_keys or ())),
        "familyId": (guest.family_id is not None, (guest.family_id or b"").hex()),
        "imageId": (guest.image_id is not None, (guest.image_id or b"").hex()),
        "minGuestSvn": (guest.min_guest_svn != 0, guest.min_guest_svn),
        "chipIds": (guest.chip_ids is not None, _hex(guest.chip_ids or ())),
        "maskedChipId": (guest.masked_chip_id, True),
        "signingKeys": (guest.signing_keys != {"VCEK"}, sorted(guest.signing_keys)),
        "cspIds": (bool(guest.csp_ids), sorted(guest.csp_ids)),
        "platformInfo": (bool(guest.platform_require or guest.platform_forbid), platform),
        "mitigations": (bool(guest.launch_mitigations or guest.current_mitigations), mitigations),
        "minFirmware": (guest.min_firmware is not None, list(guest.min_firmware or ())),
        "provisionalFirmware": (not guest.provisional_firmware, False),
        "versions": (versions != {"min": _OLDEST_WITH_CPUID, "max": NEWEST_REPORT_VERSION}, versions),
        "crl": (crl is not None, {"missing": crl.missing.value, "stale": crl.stale.value} if crl else {}),
    }
    return written | {name: value for name, (is_needed, value) in optional.items() if is_needed}


def digest(size: int) -> Reader[bytes]:
    """Reads `size` bytes in lower-case hex."""

    def read(value: object, where: str) -> bytes:
        if not isinstance(value, str) or len(value) != 2 * size or not _HEX.fullmatch(value):
            raise GuestValuesError(f"{where}: not {2 * size} lower-case hexadecimal digits")
        return bytes.fromhex(value)

    return read


def digests(size: int) -> Reader[frozenset[bytes]]:
    """Reads a list of at least one digest."""
    read_one = digest(size)
    return lambda value, where: frozenset(read_one(each, where) for each in filled_list(value, where))


def filled_list(value: object, where: str) -> list[object]:
    """The list, of 1 to 256 different entries. Raises GuestValuesError."""
    if not isinstance(value, list) or not 0 < len(value) <= _MOST:
        raise GuestValuesError(f"{where}: not a list of 1 to {_MOST} entries")
    if any(each in value[:index] for index, each in enumerate(value)):
        raise GuestValuesError(f"{where}: has an entry twice")
    return value


def number(bits: int) -> Reader[int]:
    """Reads a whole number of at most `bits` bits."""

    def read(value: object, where: str) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << bits:
            raise GuestValuesError(f"{where}: not a whole number of at most {bits} bits")
        return value

    return read


def mask(value: object, where: str) -> int:
    """Reads 64 bits as text, such as 0x30000."""
    if not isinstance(value, str) or not _MASK.fullmatch(value):
        raise GuestValuesError(f"{where}: not a mask in lower-case hexadecimal digits, such as 0x30000")
    return int(value, 16)


def boolean(value: object, where: str) -> bool:
    """Reads true or false."""
    if not isinstance(value, bool):
        raise GuestValuesError(f"{where}: neither true nor false")
    return value


def _optional(read: Reader[T]) -> Reader[T | None]:
    return read


def _numbers(count: int) -> Reader[Any]:
    """Reads a version as its numbers, each from 0 to 255."""
    read_one = number(8)

    def read(value: object, where: str) -> tuple[int, ...]:
        if not isinstance(value, list) or len(value) != count:
            raise GuestValuesError(f"{where}: not a list of {count} numbers")
        return tuple(read_one(each, where) for each in value)

    return read


def _product(value: object, where: str) -> str:
    if not isinstance(value, str) or value not in TCB_COMPONENTS:
        raise GuestValuesError(f"{where}: not one of {', '.join(TCB_COMPONENTS)}")
    return value


def _tcb(components: tuple[str, ...]) -> Reader[TcbFloor]:
    def read(value: object, where: str) -> TcbFloor:
        members = Members(value, where)
        floor = TcbFloor(**{name: members.take(name, number(8)) for name in components})
        members.end()
        if not any(_write_tcb(floor).values()):
            raise GuestValuesError(f"{where}: zero in every component, so any firmware would do")
        return floor

    return read


def _policy(value: object, where: str) -> RequiredGuestPolicy:
    if not isinstance(value, dict):
        exact = mask(value, where)
        if exact & _DEBUG or exact >> _FIRST_RESERVED or not exact & _MUST_BE_ONE:
            raise GuestValuesError(f"{where}: DEBUG is set, or bit 17 is not, or a reserved bit is")
        return RequiredGuestPolicy(exact=exact)
    members = Members(value, where)
    default = RequiredGuestPolicy()
    bits = {field: members.get(name, boolean, getattr(default, field)) for name, field in _POLICY_BITS.items()}
    least = members.get("minAbi", _numbers(2), default.min_abi)
    members.end()
    return RequiredGuestPolicy(**bits, min_abi=least)


def _vmpl(value: object, where: str) -> frozenset[int]:
    values = filled_list(value, where)
    return frozenset(number(2)(each, where) for each in values)


def _signing_keys(value: object, where: str) -> frozenset[str]:
    keys = frozenset(each for each in filled_list(value, where) if isinstance(each, str))
    if not keys or len(keys) != len(filled_list(value, where)) or not keys <= {"VCEK", "VLEK"}:
        raise GuestValuesError(f"{where}: not a list of VCEK and VLEK")
    return keys


def _csp_ids(value: object, where: str) -> frozenset[str]:
    names = filled_list(value, where)
    found = frozenset(each for each in names if isinstance(each, str) and _CSP.fullmatch(each))
    if len(found) != len(names):
        raise GuestValuesError(f"{where}: not a list of names of at most 256 printable characters")
    return found


def _two_masks(first: str, second: str) -> Reader[tuple[int, int]]:
    def read(value: object, where: str) -> tuple[int, int]:
        members = Members(value, where)
        masks = (members.take(first, mask), members.take(second, mask))
        members.end()
        return masks

    return read


def _versions(value: object, where: str) -> tuple[int, int]:
    members = Members(value, where)
    oldest, newest = members.take("min", number(32)), members.take("max", number(32))
    members.end()
    if not OLDEST_REPORT_VERSION <= oldest <= newest <= NEWEST_REPORT_VERSION:
        raise GuestValuesError(f"{where}: not from {OLDEST_REPORT_VERSION} to {NEWEST_REPORT_VERSION}, in this order")
    return oldest, newest


def _revocation(value: object, where: str) -> RevocationPolicy:
    members = Members(value, where)
    policy = RevocationPolicy(members.take("missing", _action), members.take("stale", _action))
    members.end()
    return policy


def _action(value: object, where: str) -> RevocationAction:
    if value == RevocationAction.REFUSE:
        return RevocationAction.REFUSE
    if value == RevocationAction.ACCEPT:
        return RevocationAction.ACCEPT
    raise GuestValuesError(f"{where}: neither refuse nor accept")


def _hex(values: frozenset[bytes] | tuple[()]) -> list[str]:
    return sorted(each.hex() for each in values)


def _write_tcb(floor: TcbFloor) -> dict[str, int]:
    found: Mapping[str, int | None] = {
        "fmc": floor.fmc,
        "bootloader": floor.bootloader,
        "tee": floor.tee,
        "snp": floor.snp,
        "microcode": floor.microcode,
    }
    return {name: value for name, value in found.items() if value is not None}


def _write_policy(policy: RequiredGuestPolicy) -> str | dict[str, Any]:
    if policy.exact is not None:
        return hex(policy.exact)
    default = RequiredGuestPolicy()
    bits: dict[str, Any] = {
        name: getattr(policy, field)
        for name, field in _POLICY_BITS.items()
        if getattr(policy, field) != getattr(default, field)
    }
    return bits | ({"minAbi": list(policy.min_abi)} if policy.min_abi != default.min_abi else {})
