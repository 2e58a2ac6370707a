"""TCB_VERSION: eight bytes whose meaning depends on the product line (AMD 56860, "TCB_VERSION")."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from attestation.errors import FormatError
from attestation.report.products import TcbLayout

TCB_SIZE = 8
# Component -> byte; the other bytes are reserved.
_LAYOUTS: dict[TcbLayout, dict[str, int]] = {
    "milan": {"bootloader": 0, "tee": 1, "snp": 6, "microcode": 7},
    "turin": {"fmc": 0, "bootloader": 1, "tee": 2, "snp": 3, "microcode": 7},
}


def components(layout: TcbLayout) -> tuple[str, ...]:
    """The component names of a layout, in byte order."""
    return tuple(_LAYOUTS[layout])


class _Versions(NamedTuple):
    bootloader: int
    tee: int
    snp: int
    microcode: int
    fmc: int | None = None


class Tcb(_Versions):
    """Security versions of the firmware components, each 0 to 255. `fmc` exists from Turin on and is None before.

    Has no ordering operators on purpose: versions compare component by component, never as a tuple or one number.
    """

    __slots__ = ()
    __lt__ = __le__ = __gt__ = __ge__ = None  # type: ignore[assignment]

    def at_least(self, floor: Tcb) -> bool:
        """Every component is at least the floor's; False when only one of the two has an FMC."""
        if (self.fmc is None) != (floor.fmc is None):
            return False
        return (
            (self.fmc or 0) >= (floor.fmc or 0)
            and self.bootloader >= floor.bootloader
            and self.tee >= floor.tee
            and self.snp >= floor.snp
            and self.microcode >= floor.microcode
        )

    def as_dict(self) -> dict[str, int]:
        """Component -> version, without `fmc` where the line has none."""
        first = {} if self.fmc is None else {"fmc": self.fmc}
        return first | {"bootloader": self.bootloader, "tee": self.tee, "snp": self.snp, "microcode": self.microcode}

    def __str__(self) -> str:
        return _text(self)


# A machine's TCBs are the same in all its reports, and each report has four that many checks read and print.
_KEPT = 1024


@lru_cache(maxsize=_KEPT)
def _text(tcb: Tcb) -> str:
    return " ".join(f"{name}={version}" for name, version in tcb.as_dict().items())


@lru_cache(maxsize=_KEPT)
def decode_tcb(raw: bytes, layout: TcbLayout) -> Tcb:
    """Decode eight bytes; reserved ones are not looked at (`encode_tcb` writes them as zero).

    Raises FormatError unless there are exactly eight.
    """
    if len(raw) != TCB_SIZE:
        raise FormatError(f"TCB_VERSION has {len(raw)} bytes, required {TCB_SIZE}")
    return Tcb(**{name: raw[offset] for name, offset in _LAYOUTS[layout].items()})


@lru_cache(maxsize=_KEPT)
def encode_tcb(tcb: Tcb, layout: TcbLayout) -> bytes:
    """Eight bytes with zero in the reserved ones.

    Raises FormatError for a version above 255, or an FMC where the layout has none (and the reverse).
    """
    versions = tcb.as_dict()
    if set(versions) != set(_LAYOUTS[layout]):
        raise FormatError(f"TCB has {', '.join(versions)}, required {', '.join(_LAYOUTS[layout])}")
    raw = bytearray(TCB_SIZE)
    for name, offset in _LAYOUTS[layout].items():
        if not 0 <= versions[name] <= 0xFF:
            raise FormatError(f"TCB component {name} is {versions[name]}, required 0 to 255")
        raw[offset] = versions[name]
    return bytes(raw)
