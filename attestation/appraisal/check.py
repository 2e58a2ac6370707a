"""The shape of a check: a small named function from facts to an outcome."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from typing import NamedTuple, TypeVar

from attestation.pki.certificates import Certificate
from attestation.pki.crl import RevocationList
from attestation.pki.roots import TrustAnchors
from attestation.report.abi import Report, SigningKey
from attestation.report.envelopes import Evidence
from attestation.report.products import ProductLine
from attestation.report.tcb import Tcb, decode_tcb
from kbs.reference_values import GuestReference, RevocationPolicy

T = TypeVar("T")


class Facts(NamedTuple):
    """All that checks may look at; gathered before the first one runs, and nothing in it is trusted yet.

    `line`: the layout that TCBs are decoded in, by CPUID or else by the leaf's issuer. `crls`: those that name the root
    as issuer. `host_data`, `initdata` and `report_data`: what the caller expects, None for no expectation. `now`: None
    where the caller's clock decides nothing.
    """

    evidence: Evidence
    line: ProductLine | None
    leaf: Certificate | None
    intermediate: Certificate | None
    root: Certificate | None
    crls: tuple[RevocationList, ...]
    anchors: TrustAnchors
    revocation: RevocationPolicy
    reference: GuestReference | None
    host_data: frozenset[bytes] | None
    initdata: bytes | None
    report_data: tuple[bytes, ...] | None
    now: datetime | None

    @property
    def report(self) -> Report:
        """The evidence's report."""
        return self.evidence.report

    @property
    def is_vlek(self) -> bool:
        """By KEY_INFO, which is signed; the check `leaf/type` makes the certificate agree."""
        return self.report.signing_key == SigningKey.VLEK

    def tcb(self, raw: bytes) -> Tcb:
        """Decode a TCB of this report; only for checks that need `product/line`."""
        return decode_tcb(raw, required(self.line).tcb_layout)


class CheckOutcome(NamedTuple):
    """The return value of a check's function; `result.CheckResult` adds the check's id."""

    ok: bool
    actual: str
    required: str
    advice: str = ""


# None: the report lacks this property, or the caller does not require it. The check then leaves no trace.
Evaluate = Callable[[Facts], CheckOutcome | None]


class Check(NamedTuple):
    """`needs`: ids of checks that must hold first; otherwise this one is reported as not evaluated.

    If a needed check does not apply to this report, neither does this one. `with_reference`: applies only when there
    are reference values to compare with.
    """

    id: str
    evaluate: Evaluate
    needs: tuple[str, ...] = ()
    with_reference: bool = False


def check(identifier: str, *, needs: tuple[str, ...] = (), with_reference: bool = False) -> Callable[[Evaluate], Check]:
    """Turn a function into the check with this id."""
    return lambda evaluate: Check(identifier, evaluate, needs, with_reference)


def required(value: T | None) -> T:
    """The value of something that a check in `needs` has shown to be there."""
    if value is None:
        raise AssertionError("a check ran without what it needs")
    return value


@lru_cache(maxsize=256)
def one_of(values: frozenset[bytes]) -> str:
    """An allow-list of digests, as text."""
    return "one of " + ", ".join(sorted(value.hex() for value in values)) if values else "nothing: the list is empty"
