"""Guest reference values: what a believed guest looks like (design section 7, `NAME: {product, measurements, …}`).

Plain data in, frozen types out, unknown keys refused. Whoever reads the YAML file does so outside.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

from attestation.errors import PolicyError
from attestation.report.abi import NEWEST_VERSION, OLDEST_VERSION, PLATFORM_INFO_BITS, FirmwareVersion, GuestPolicy
from attestation.report.products import LINES, ProductLine, line_by_name
from attestation.report.tcb import Tcb, components

T = TypeVar("T")


class Answer(StrEnum):
    """What to do about a missing or stale revocation list."""

    REFUSE = "refuse"
    ACCEPT = "accept"


@dataclass(frozen=True, slots=True)
class RevocationPolicy:
    """A revoked certificate and a forged list are refused always; only these two are a choice."""

    missing: Answer = Answer.REFUSE
    stale: Answer = Answer.REFUSE


REQUIRE_CRL = RevocationPolicy()
SOFT_CRL = RevocationPolicy(Answer.ACCEPT, Answer.ACCEPT)


@dataclass(frozen=True, slots=True)
class GuestPolicyRule:
    """What the report's POLICY may and must say. DEBUG has no switch: such a guest is never believed.

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


@dataclass(frozen=True, slots=True)
class GuestReference:
    """One named guest. None for a set means "not looked at"; an empty set never occurs except in `measurements`.

    Digests are raw bytes: `measurements`, `id_keys` and `author_keys` 48, `host_data` 32, `chip_ids` 64.
    `platform_require` and `platform_forbid` are masks over PLATFORM_INFO, the mitigation masks over *_MIT_VECTOR.
    `revocation` None leaves that to the caller.
    """

    name: str
    product: ProductLine
    measurements: frozenset[bytes]
    min_tcb: Tcb
    min_committed_tcb: Tcb
    min_launch_tcb: Tcb
    policy: GuestPolicyRule = GuestPolicyRule()
    vmpl: frozenset[int] = frozenset({0})
    host_data: frozenset[bytes] | None = None
    id_keys: frozenset[bytes] | None = None
    author_keys: frozenset[bytes] | None = None
    family_id: bytes | None = None
    image_id: bytes | None = None
    min_guest_svn: int = 0
    chip_ids: frozenset[bytes] | None = None
    masked_chip_id: bool = False
    signing_keys: frozenset[str] = frozenset({"VCEK", "VLEK"})
    platform_require: int = 0
    platform_forbid: int = 0
    launch_mitigations: int = 0
    current_mitigations: int = 0
    min_firmware: FirmwareVersion | None = None
    provisional_firmware: bool = True
    min_version: int = 3
    max_version: int = NEWEST_VERSION
    revocation: RevocationPolicy | None = None


class _Reader:
    """Takes keys out of one mapping; what is left at the end is unknown."""

    def __init__(self, source: object, where: str) -> None:
        if not isinstance(source, Mapping) or not all(isinstance(key, str) for key in source):
            raise PolicyError(f"{where} is not a mapping with text keys")
        self._left: dict[str, Any] = dict(source)
        self._known: list[str] = []
        self.where = where

    def take(self, key: str, read: Callable[[Any, str], T], default: T | None = None, *, required: bool = False) -> T:
        self._known.append(key)
        if key in self._left:
            return read(self._left.pop(key), f"{self.where}.{key}")
        if required or default is None:
            raise PolicyError(f"{self.where}.{key} is missing")
        return default

    def maybe(self, key: str, read: Callable[[Any, str], T]) -> T | None:
        self._known.append(key)
        return read(self._left.pop(key), f"{self.where}.{key}") if key in self._left else None

    def done(self) -> None:
        if self._left:
            unknown = ", ".join(key[:64] for key in sorted(self._left)[:8])
            raise PolicyError(f"{self.where}: unknown {unknown}; known are {', '.join(self._known)}")


def parse_guest_entry(document: object) -> GuestReference:
    """The only entry of a `NAME: {…}` mapping. Raises PolicyError, also for none or several."""
    entries = parse_guests(document)
    if len(entries) != 1:
        raise PolicyError(f"file has {len(entries)} guest entries, required one")
    return next(iter(entries.values()))


def parse_guests(document: object) -> dict[str, GuestReference]:
    """All entries of a `NAME: {…}` mapping. Raises PolicyError with the path of the wrong key."""
    if not isinstance(document, Mapping):
        raise PolicyError(
            "guest reference values are not a mapping NAME: {product, measurements, minTcb, policy, vmpl}"
        )
    guests: dict[str, GuestReference] = {}
    for name, entry in document.items():
        if not isinstance(name, str) or not name:
            raise PolicyError(f"guest name {_shown(name)} is not text")
        guests[name] = parse_guest(name, entry)
    return guests


def parse_guest(name: str, document: object) -> GuestReference:
    """One entry's value. Raises PolicyError with the path of the wrong key."""
    reader = _Reader(document, name)
    product = reader.take("product", _product, required=True)

    def tcb(value: Any, where: str) -> Tcb:
        return _tcb(value, where, product)

    min_tcb = reader.take("minTcb", tcb, required=True)
    platform = _Reader(reader.take("platformInfo", lambda value, _: value, {}), f"{name}.platformInfo")
    mitigations = _Reader(reader.take("mitigations", lambda value, _: value, {}), f"{name}.mitigations")
    versions = _Reader(reader.take("versions", lambda value, _: value, {}), f"{name}.versions")
    reference = GuestReference(
        name=name,
        product=product,
        measurements=reader.take("measurements", _digests(48, allow_empty=True), required=True),
        min_tcb=min_tcb,
        min_committed_tcb=reader.take("minCommittedTcb", tcb, min_tcb),
        min_launch_tcb=reader.take("minLaunchTcb", tcb, min_tcb),
        policy=reader.take("policy", _rule, GuestPolicyRule()),
        vmpl=reader.take("vmpl", _vmpls, frozenset({0})),
        host_data=reader.maybe("hostData", _digests(32)),
        id_keys=reader.maybe("idKeys", _digests(48)),
        author_keys=reader.maybe("authorKeys", _digests(48)),
        family_id=reader.maybe("familyId", _digest(16)),
        image_id=reader.maybe("imageId", _digest(16)),
        min_guest_svn=reader.take("minGuestSvn", _unsigned(32), 0),
        chip_ids=reader.maybe("chipIds", _digests(64)),
        masked_chip_id=reader.take("maskedChipId", _boolean, False),
        signing_keys=reader.take("signingKeys", _signing_keys, frozenset({"VCEK", "VLEK"})),
        platform_require=platform.take("require", _platform_bits, 0),
        platform_forbid=platform.take("forbid", _platform_bits, 0),
        launch_mitigations=mitigations.take("launch", _unsigned(64), 0),
        current_mitigations=mitigations.take("current", _unsigned(64), 0),
        min_firmware=reader.maybe("minFirmware", _firmware),
        provisional_firmware=reader.take("provisionalFirmware", _boolean, True),
        min_version=versions.take("min", _unsigned(32), 3),
        max_version=versions.take("max", _unsigned(32), NEWEST_VERSION),
        revocation=reader.maybe("crl", _revocation),
    )
    for each in (reader, platform, mitigations, versions):
        each.done()
    _check_consistent(reference)
    return reference


def _check_consistent(reference: GuestReference) -> None:
    name = reference.name
    if not reference.measurements and reference.id_keys is None and reference.author_keys is None:
        raise PolicyError(f"{name}.measurements is empty, required at least one digest, or idKeys or authorKeys")
    if not OLDEST_VERSION <= reference.min_version <= reference.max_version:
        raise PolicyError(
            f"{name}.versions is {reference.min_version} to {reference.max_version},"
            f" required {OLDEST_VERSION} or later, in order"
        )
    if reference.platform_require & reference.platform_forbid:
        raise PolicyError(f"{name}.platformInfo requires and forbids the same bit")


def _shown(value: object) -> str:
    """The value in a message, shortened: a file of the wrong kind must not fill the log."""
    return reprlib.repr(value)[:200]


def _product(value: Any, where: str) -> ProductLine:
    line = line_by_name(value) if isinstance(value, str) else None
    if line is None or not line.supported:
        raise PolicyError(
            f"{where} is {_shown(value)}, required one of {', '.join(x.name for x in LINES if x.supported)}"
        )
    return line


def _tcb(value: Any, where: str, product: ProductLine) -> Tcb:
    reader = _Reader(value, where)
    parts = {name: reader.take(name, _unsigned(8), required=True) for name in components(product.tcb_layout)}
    reader.done()
    return Tcb(**parts)


def _rule(value: Any, where: str) -> GuestPolicyRule:
    if not isinstance(value, Mapping):
        exact = GuestPolicy(_unsigned(64)(value, where))
        if exact.debug:
            raise PolicyError(f"{where} has DEBUG set: such a guest is never believed")
        if exact.reserved or not exact.reserved_one:
            raise PolicyError(f"{where} is 0x{exact.value:x}, required bit 17 one and bits 63:26 zero")
        return GuestPolicyRule(exact=exact.value, smt=exact.smt, migrate_ma=exact.migrate_ma, cxl_allow=exact.cxl_allow)
    reader = _Reader(value, where)
    if reader.take("debug", _boolean, False):
        raise PolicyError(f"{where}.debug is true: such a guest is never believed")
    rule = GuestPolicyRule(
        smt=reader.take("smt", _boolean, True),
        migrate_ma=reader.take("migrateMa", _boolean, False),
        cxl_allow=reader.take("cxlAllow", _boolean, False),
        single_socket=reader.take("singleSocket", _boolean, False),
        mem_aes_256_xts=reader.take("memAes256Xts", _boolean, False),
        rapl_dis=reader.take("raplDis", _boolean, False),
        ciphertext_hiding_dram=reader.take("ciphertextHidingDram", _boolean, False),
        page_swap_disable=reader.take("pageSwapDisable", _boolean, False),
        min_abi=reader.take("minAbi", _abi, (0, 0)),
    )
    reader.done()
    return rule


def _revocation(value: Any, where: str) -> RevocationPolicy:
    if value == "require":
        return REQUIRE_CRL
    if value == "soft":
        return SOFT_CRL
    if not isinstance(value, Mapping):
        raise PolicyError(f"{where} is {_shown(value)}, required require, soft or {{missing, stale}}")
    reader = _Reader(value, where)
    policy = RevocationPolicy(
        reader.take("missing", _answer, Answer.REFUSE), reader.take("stale", _answer, Answer.REFUSE)
    )
    reader.done()
    return policy


def _answer(value: Any, where: str) -> Answer:
    if value not in tuple(Answer):
        raise PolicyError(f"{where} is {_shown(value)}, required refuse or accept")
    return Answer(value)


def _boolean(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise PolicyError(f"{where} is {_shown(value)}, required true or false")
    return value


def _unsigned(bits: int) -> Callable[[Any, str], int]:
    def read(value: Any, where: str) -> int:
        if isinstance(value, str) and value.lower().startswith("0x"):
            try:
                value = int(value, 16)
            except ValueError:
                raise PolicyError(f"{where} is {_shown(value)}, required a number") from None
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << bits:
            raise PolicyError(f"{where} is {_shown(value)}, required a number of at most {bits} bits")
        return value

    return read


def _digest(size: int) -> Callable[[Any, str], bytes]:
    def read(value: Any, where: str) -> bytes:
        if not isinstance(value, str) or len(value) != 2 * size:
            raise PolicyError(f"{where} is not {2 * size} hexadecimal digits in quotes")
        try:
            return bytes.fromhex(value)
        except ValueError:
            raise PolicyError(f"{where} is not {2 * size} hexadecimal digits in quotes") from None

    return read


def _list(value: Any, where: str) -> Collection[Any]:
    if not isinstance(value, list):
        raise PolicyError(f"{where} is not a list")
    return value


def _digests(size: int, *, allow_empty: bool = False) -> Callable[[Any, str], frozenset[bytes]]:
    def read(value: Any, where: str) -> frozenset[bytes]:
        entries = _list(value, where)
        if not entries and not allow_empty:
            raise PolicyError(f"{where} is empty; leave the key out to not look at it")
        one = _digest(size)
        return frozenset(one(entry, f"{where}[{number}]") for number, entry in enumerate(entries))

    return read


def _vmpls(value: Any, where: str) -> frozenset[int]:
    values = value if isinstance(value, list) else [value]
    if not values or any(not isinstance(each, int) or isinstance(each, bool) or not 0 <= each <= 3 for each in values):
        raise PolicyError(f"{where} is {_shown(value)}, required 0 to 3, or a list of those")
    return frozenset(values)


def _signing_keys(value: Any, where: str) -> frozenset[str]:
    values = _list(value, where)
    if not values or any(each not in ("VCEK", "VLEK") for each in values):
        raise PolicyError(f"{where} is {_shown(value)}, required a list of VCEK, VLEK")
    return frozenset(values)


def _platform_bits(value: Any, where: str) -> int:
    if not isinstance(value, list):
        return _unsigned(64)(value, where)
    mask = 0
    for name in value:
        if not isinstance(name, str) or name not in PLATFORM_INFO_BITS:
            raise PolicyError(
                f"{where} has {_shown(name)}, required some of {', '.join(PLATFORM_INFO_BITS)}, or a mask"
            )
        mask |= 1 << PLATFORM_INFO_BITS[name]
    return mask


def _numbers(value: Any, where: str, count: int, form: str) -> tuple[int, ...]:
    parts = value.split(".") if isinstance(value, str) else []
    if len(parts) != count or not all(part.isascii() and part.isdigit() and len(part) <= 3 for part in parts):
        raise PolicyError(f"{where} is {_shown(value)}, required {form} in quotes")
    numbers = tuple(int(part) for part in parts)
    if max(numbers) > 0xFF:
        raise PolicyError(f"{where} is {_shown(value)}, required numbers up to 255")
    return numbers


def _abi(value: Any, where: str) -> tuple[int, int]:
    major, minor = _numbers(value, where, 2, "MAJOR.MINOR")
    return major, minor


def _firmware(value: Any, where: str) -> FirmwareVersion:
    return FirmwareVersion(*_numbers(value, where, 3, "MAJOR.MINOR.BUILD"))
