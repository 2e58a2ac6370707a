"""A second appraisal: other reference values for a report that was accepted earlier. No I/O, no clock, no state.

A report's signature, chain and revocation do not depend on reference values, so an edit of those is judged without
certificates: by what the report says, and by the little that its certificates and lists have added.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from attestation.appraisal.appraise import evaluated
from attestation.appraisal.check import Facts
from attestation.appraisal.result import AttestationResult
from attestation.errors import FormatError
from attestation.pki.endorsements import Endorsements
from attestation.pki.roots import TrustAnchors
from attestation.report.abi import REPORT_SIZE, SIGNED_SIZE, Report, SigningKey, parse_report
from attestation.report.envelopes import Envelope, Evidence
from attestation.report.products import line_by_name
from kbs.reference_values import REQUIRE_CRL, GuestReference, RevocationAction

# These read certificates, lists or the signature. All that need one of them are spared with it.
_SHOWN_BEFORE: Final = frozenset({"certificates/leaf", "certificates/root", "crl/present", "signature/encoding"})
# A check that held although a revocation list was missing or stale, because the reference values said so.
_TOLERATED: Final = ("crl/present", "crl/fresh")


@dataclass(frozen=True, slots=True)
class AttestedReport:
    """What remains of accepted evidence. `signed`: the bytes under the report's signature, without the signature.

    `csp_id`: the provider that a VLEK names. `serials`: of the leaf and of its issuer. `tolerated`: the checks of
    revocation lists that held only because the reference values accept a missing or a stale list.
    """

    signed: bytes
    line: str
    csp_id: str | None
    serials: tuple[int, int]
    tolerated: tuple[str, ...]

    @classmethod
    def of(cls, evidence: Evidence, endorsements: Endorsements, result: AttestationResult) -> AttestedReport:
        """Of an accepted result and what it was reached with. Raises ValueError for any other result."""
        leaf, issuer = endorsements.leaf, endorsements.issuer_of_leaf()
        if not result.accepted or leaf is None or issuer is None or result.product is None:
            raise ValueError("nothing was attested")
        return cls(
            signed=evidence.report.raw[:SIGNED_SIZE],
            line=result.product,
            csp_id=leaf.vek.csp_id,
            serials=(leaf.serial, issuer.serial),
            tolerated=tuple(check.id for check in result.checks if check.id in _TOLERATED and check.advice),
        )

    @property
    def report(self) -> Report:
        """The report, with zeros for its signature."""
        return parse_report(self.signed.ljust(REPORT_SIZE, b"\0"))

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready; `from_dict` reads it."""
        return {
            "signed": self.signed.hex(),
            "line": self.line,
            "csp_id": self.csp_id,
            "serials": [str(serial) for serial in self.serials],
            "tolerated": list(self.tolerated),
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> AttestedReport:
        """Raises KeyError, TypeError, ValueError or FormatError."""
        leaf, issuer = document["serials"]
        found = cls(
            signed=bytes.fromhex(document["signed"]),
            line=document["line"],
            csp_id=document["csp_id"],
            serials=(int(leaf), int(issuer)),
            tolerated=tuple(document["tolerated"]),
        )
        if len(found.signed) != SIGNED_SIZE:
            raise FormatError(f"{len(found.signed)} bytes of a report, required {SIGNED_SIZE}")
        return found


def reappraise(
    attested: AttestedReport, anchors: TrustAnchors, reference: GuestReference, host_data: frozenset[bytes] | None
) -> tuple[str, ...]:
    """The ids of the checks that these reference values would not pass; empty while the report stays accepted.

    `host_data`: as in `appraise.Expectation`.
    """
    report, line = attested.report, line_by_name(attested.line)
    facts = Facts(
        evidence=Evidence(report, Envelope.RAW),
        line=line,
        leaf=None,
        intermediate=None,
        root=None,
        crls=(),
        anchors=anchors,
        revocation=reference.revocation or REQUIRE_CRL,
        reference=reference,
        host_data=host_data,
        initdata=None,
        report_data=None,
        now=None,
    )
    failed = [check.id for check in evaluated(facts, _SHOWN_BEFORE) if check.ok is False]
    is_vlek = report.signing_key == SigningKey.VLEK
    if is_vlek and attested.csp_id not in reference.csp_ids:
        failed.append("leaf/provider")
    if not is_vlek and not any(report.chip_id) and not reference.masked_chip_id:
        failed.append("leaf/chip-id")
    actions = dict(zip(_TOLERATED, (facts.revocation.missing, facts.revocation.stale), strict=True))
    failed += [name for name in attested.tolerated if actions[name] is not RevocationAction.ACCEPT]
    return tuple(failed)
