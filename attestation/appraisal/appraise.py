"""Appraisal: evidence, certificates and expectations in, a verdict out. No I/O, no clock, no state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType

from attestation.appraisal.checks import UNITS, Facts, Unit
from attestation.appraisal.checks.product import issuer_line
from attestation.appraisal.reference_values import REQUIRE_CRL, GuestReference, RevocationPolicy
from attestation.appraisal.result import Assurance, Check, Scope, Verdict
from attestation.pki.endorsements import Collateral
from attestation.pki.roots import Anchors
from attestation.report.abi import Report, SigningKey, parse_report
from attestation.report.envelopes import Evidence
from attestation.report.products import ProductLine, line_by_cpuid


@dataclass(frozen=True, slots=True)
class Expectation:
    """What the caller wants to see beyond authenticity; None everywhere means "not looked at".

    `report_data`: the accepted 64-byte values, see `report_data.accepted`. `host_data`: the accepted 32-byte values.
    `revocation`: where the reference values say nothing about it.
    """

    reference: GuestReference | None = None
    report_data: tuple[bytes, ...] | None = None
    host_data: frozenset[bytes] | None = None
    revocation: RevocationPolicy = REQUIRE_CRL
    assurance: Assurance | None = None


AUTHENTICITY_ONLY = Expectation()


def appraise(
    evidence: Evidence,
    collateral: Collateral,
    anchors: Anchors,
    now: datetime,
    expectation: Expectation = AUTHENTICITY_ONLY,
    *,
    source: str | None = None,
) -> Verdict:
    """Run every check and report them all; one that needs a failed one is reported as not evaluated.

    `now` is aware. `source` is the evidence source's name, by default the envelope's. Raises FormatError when the
    report has a wrong size or a version below 2, and ValueError for a naive `now`; nothing else.
    """
    if now.tzinfo is None:
        raise ValueError("now has no time zone")
    report = parse_report(evidence.report)
    facts = _gather(evidence, report, collateral, anchors, now, expectation)
    return Verdict(
        checks=_run(facts),
        scope=Scope.AUTHENTICITY if expectation.reference is None else Scope.POLICY,
        source=evidence.envelope.value if source is None else source,
        simulated=facts.line is not None and anchors.is_foreign(facts.line.name),
        product=None if facts.line is None else facts.line.name,
        at=now,
        claims=MappingProxyType(_claims(facts)),
        reference=None if expectation.reference is None else expectation.reference.name,
        assurance=expectation.assurance,
    )


def product_line(report: Report, collateral: Collateral) -> ProductLine | None:
    """CPUID's line; in version 2, which has none, the line that the leaf's issuer names. None when unknown."""
    if report.has_cpuid:
        return line_by_cpuid(report.cpuid_fam_id, report.cpuid_mod_id)
    return None if collateral.leaf is None else issuer_line(collateral.leaf.issuer_name)


def _gather(
    evidence: Evidence,
    report: Report,
    collateral: Collateral,
    anchors: Anchors,
    now: datetime,
    expectation: Expectation,
) -> Facts:
    line = product_line(report, collateral)
    root = None if line is None else anchors.certificates.get(line.name)
    reference = expectation.reference
    return Facts(
        evidence=evidence,
        report=report,
        line=line,
        leaf=collateral.leaf,
        intermediate=collateral.issuer_of_leaf(),
        root=root,
        crls=tuple(crl for crl in collateral.crls if root is not None and crl.issuer == root.subject),
        anchors=anchors,
        revocation=(None if reference is None else reference.revocation) or expectation.revocation,
        reference=reference,
        host_data=expectation.host_data,
        report_data=expectation.report_data,
        now=now,
    )


def _run(facts: Facts) -> tuple[Check, ...]:
    checks: dict[str, Check | None] = {}
    for unit in UNITS:
        checks[unit.id] = _judge(unit, facts, checks)
    return tuple(check for check in checks.values() if check is not None)


def _judge(unit: Unit, facts: Facts, before: Mapping[str, Check | None]) -> Check | None:
    if unit.with_reference and facts.reference is None:
        return None
    needs = [(need, before[need]) for need in unit.needs]
    if any(check is None for _, check in needs):
        return None
    waiting = [need for need, check in needs if check is not None and not check.ok]
    if waiting:
        return Check(unit.id, None, f"needs {', '.join(waiting)}", "")
    finding = unit.judge(facts)
    return None if finding is None else Check(unit.id, finding.ok, finding.actual, finding.required, finding.advice)


def _claims(facts: Facts) -> dict[str, str]:
    report = facts.report
    claims = {
        "snp_version": str(report.version),
        "snp_measurement": report.measurement.hex(),
        "snp_host_data": report.host_data.hex(),
        "snp_report_data": report.report_data.hex(),
        "snp_report_id": report.report_id.hex(),
        "snp_chip_id": report.chip_id.hex(),
        "snp_id_key_digest": report.id_key_digest.hex(),
        "snp_author_key_digest": report.author_key_digest.hex(),
        "snp_policy": f"0x{report.policy:x}",
        "snp_vmpl": str(report.vmpl),
        "snp_guest_svn": str(report.guest_svn),
        "snp_platform_info": f"0x{report.platform_info:x}",
        "snp_signing_key": "vlek" if report.signing_key == SigningKey.VLEK else "vcek",
        "snp_firmware": str(report.current_firmware),
    }
    if facts.line is not None:
        claims["snp_line"] = facts.line.name
        claims["snp_reported_tcb"] = str(facts.tcb(report.reported_tcb))
    return claims
