"""Product lines: which TCB layout, which CHIP_ID length, which names in certificates.

The line must be known before a TCB is decoded: a Turin TCB read in the Milan layout has snp = 0 and passes or fails a
floor for the wrong reason.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

TcbLayout = Literal["milan", "turin"]
_LEAF_ISSUER = re.compile(r"SEV-(?:VLEK-)?([A-Za-z0-9]+)")


class ProductLine(NamedTuple):
    """One product line as AMD's key service names it.

    `chip_id_size`: how many leading bytes of CHIP_ID are the hwID (the rest is zero).
    `cpuid`: inclusive (family, lowest model, highest model), the combined values that reports carry from version 3 on.
    """

    name: str
    tcb_layout: TcbLayout
    chip_id_size: int
    cpuid: tuple[tuple[int, int, int], ...]
    supported: bool = True
    simulated: bool = False

    @property
    def ark_name(self) -> str:
        return f"ARK-{self.name}"

    def intermediate_name(self, *, vlek: bool) -> str:
        """Common name of the certificate that issues this line's leaves: the ASK, or the ASVK for VLEKs."""
        return f"SEV-VLEK-{self.name}" if vlek else f"SEV-{self.name}"


# Models: AMD 56860 "SEV-SNP ABI", ATTESTATION_REPORT CPUID fields; 0xA0-0xAF are Bergamo and Siena, which AMD's key
# service serves as Genoa.
MILAN = ProductLine("Milan", "milan", 64, ((0x19, 0x00, 0x0F),))
GENOA = ProductLine("Genoa", "milan", 64, ((0x19, 0x10, 0x1F), (0x19, 0xA0, 0xAF)))
TURIN = ProductLine("Turin", "turin", 8, ((0x1A, 0x00, 0x11),))
# Known, refused: no published root and no report to test against.
VENICE = ProductLine(
    "Venice", "turin", 8, ((0x1A, 0x50, 0x57), (0x1A, 0x90, 0xAF), (0x1A, 0xC0, 0xC7)), supported=False
)
# `morphisms simulated-hardware`: a CPUID no AMD processor has, and a root that an operator must name.
SIMULATED = ProductLine("Simulated", "milan", 64, ((0xFF, 0xFF, 0xFF),), simulated=True)

LINES: tuple[ProductLine, ...] = (MILAN, GENOA, TURIN, VENICE, SIMULATED)
_BY_NAME = {line.name: line for line in LINES}


def line_by_name(name: str) -> ProductLine | None:
    """The line with exactly this name ("Milan"), or None."""
    return _BY_NAME.get(name)


def line_by_product_name(product_name: str) -> ProductLine | None:
    """The line of a certificate's productName: "Milan-B0" (used for B1 as well) and "Milan" are both Milan."""
    return _BY_NAME.get(product_name.split("-", 1)[0])


def line_by_issuer_name(issuer_name: str) -> ProductLine | None:
    """The line in an ASK's or ASVK's common name ("SEV-Milan", "SEV-VLEK-Milan"), or None."""
    match = _LEAF_ISSUER.fullmatch(issuer_name)
    return line_by_name(match.group(1)) if match else None


def line_by_cpuid(family: int, model: int) -> ProductLine | None:
    """The line of CPUID_FAM_ID and CPUID_MOD_ID (combined values), or None."""
    for line in LINES:
        if any(family == wanted and low <= model <= high for wanted, low, high in line.cpuid):
            return line
    return None
