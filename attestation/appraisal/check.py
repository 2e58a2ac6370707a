"""The shape of a check: a small named function from facts to a finding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, TypeVar

from attestation.appraisal.reference_values import GuestReference, RevocationPolicy
from attestation.pki.certificates import Certificate
from attestation.pki.crl import RevocationList
from attestation.pki.roots import Anchors
from attestation.report.abi import Report, SigningKey
from attestation.report.envelopes import Evidence
from attestation.report.products import ProductLine
from attestation.report.tcb import Tcb, decode_tcb

T = TypeVar("T")


@dataclass(frozen=True)
class Facts:
    """All that checks may look at; gathered before the first one runs, and nothing in it is believed yet.

    `line`: what TCBs are decoded as, from CPUID or else from the leaf's issuer. `crls`: those that name the root as
    issuer. `host_data` and `report_data`: what the caller expects, None for no expectation.
    """

    evidence: Evidence
    report: Report
    line: ProductLine | None
    leaf: Certificate | None
    intermediate: Certificate | None
    root: Certificate | None
    crls: tuple[RevocationList, ...]
    anchors: Anchors
    revocation: RevocationPolicy
    reference: GuestReference | None
    host_data: frozenset[bytes] | None
    report_data: tuple[bytes, ...] | None
    now: datetime

    @property
    def is_vlek(self) -> bool:
        """By KEY_INFO, which is signed; the check `leaf/type` makes the certificate agree."""
        return self.report.signing_key == SigningKey.VLEK

    def tcb(self, raw: bytes) -> Tcb:
        """Decode a TCB of this report; only for checks that need `product/line`."""
        return decode_tcb(raw, required(self.line).tcb_layout)


class Finding(NamedTuple):
    """What a check found; see `verdict.Check`."""

    ok: bool
    actual: str
    required: str
    advice: str = ""


# None: this property does not exist for this report or was not asked for, and leaves no trace in the verdict.
Judge = Callable[[Facts], Finding | None]


@dataclass(frozen=True, slots=True)
class Unit:
    """`needs`: ids of checks that must hold first; otherwise this one is reported as not evaluated.

    A need that does not exist for this report takes this check with it. `with_reference`: exists only when there are
    reference values to compare with.
    """

    id: str
    judge: Judge
    needs: tuple[str, ...] = ()
    with_reference: bool = False


def unit(identifier: str, *, needs: tuple[str, ...] = (), with_reference: bool = False) -> Callable[[Judge], Unit]:
    """Turn a function into the check with this id."""
    return lambda judge: Unit(identifier, judge, needs, with_reference)


def required(value: T | None) -> T:
    """The value of something that a check in `needs` has shown to be there."""
    if value is None:
        raise AssertionError("a check ran without what it needs")
    return value


def one_of(values: frozenset[bytes]) -> str:
    """An allow-list of digests, as text."""
    return "one of " + ", ".join(sorted(value.hex() for value in values)) if values else "nothing: the list is empty"
