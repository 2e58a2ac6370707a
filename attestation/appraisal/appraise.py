"""Appraisal: evidence, endorsements and expectations in, an attestation result out. No I/O, no clock, no state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from types import MappingProxyType
from typing import NamedTuple

from attestation.appraisal.checks import CHECKS, Facts
from attestation.appraisal.result import Assurance, AttestationResult, CheckResult, Scope, revocation
from attestation.pki.endorsements import Endorsements, guest_supplied, product_line
from attestation.pki.roots import TrustAnchors
from attestation.report.abi import SigningKey
from attestation.report.envelopes import Evidence
from kbs.reference_values import REQUIRE_CRL, GuestReference, RevocationPolicy


class Expectation(NamedTuple):
    """What the caller requires beyond authenticity; None everywhere means "not looked at".

    `report_data`: the accepted 64-byte values, see `report_data.accepted`. `host_data`: the accepted 32-byte values.
    `revocation`: where the reference values leave it open. `trusts_clock`: False leaves validity periods out, for a
    guest, whose clock its host sets. `initdata`: the document that the guest says it was launched with.
    """

    reference: GuestReference | None = None
    report_data: tuple[bytes, ...] | None = None
    host_data: frozenset[bytes] | None = None
    revocation: RevocationPolicy = REQUIRE_CRL
    assurance: Assurance | None = None
    trusts_clock: bool = True
    initdata: bytes | None = None


AUTHENTICITY_ONLY = Expectation()
# The checks of what has to be looked for, in this process's store or at AMD. All that need one of them follow.
_FETCHED = frozenset({"certificates/leaf", "certificates/root", "crl/present"})


def appraise(
    evidence: Evidence,
    endorsements: Endorsements,
    anchors: TrustAnchors,
    now: datetime,
    expectation: Expectation = AUTHENTICITY_ONLY,
    *,
    source: str | None = None,
    before: AttestationResult | None = None,
) -> AttestationResult:
    """Run every check and report them all; one that needs a failed one is reported as not evaluated.

    `now` is aware. `source` is the evidence source's name, by default the envelope's. `before`: what
    `appraise_without_certificates` returned for the same arguments, so that its checks are not made twice. Raises
    ValueError for a naive `now`; nothing else.
    """
    if now.tzinfo is None:
        raise ValueError("now has no time zone")
    facts = _gather(evidence, endorsements, anchors, now, expectation)
    known = () if before is None else before.checks
    return _result(facts, evidence, anchors, now, expectation, source, known=known)


def appraise_without_certificates(
    evidence: Evidence, anchors: TrustAnchors, now: datetime, expectation: Expectation
) -> AttestationResult:
    """The checks that need neither certificate nor revocation list; all others are reported as not evaluated.

    So the result is never `accepted`: nothing in it is attested. With a failed check in it the full appraisal would
    refuse as well, which spares the caller the search for certificates. Arguments and errors as for `appraise`.
    """
    if now.tzinfo is None:
        raise ValueError("now has no time zone")
    given = guest_supplied(evidence)
    facts = _gather(evidence, Endorsements(given.leaf), anchors, now, expectation)
    # A report of version 2 does not name its processor: the leaf does, and that may come from elsewhere.
    unreached = _FETCHED if evidence.report.has_cpuid else _FETCHED | {"product/line"}
    return _result(facts, evidence, anchors, now, expectation, None, unreached)


def _result(
    facts: Facts,
    evidence: Evidence,
    anchors: TrustAnchors,
    now: datetime,
    expectation: Expectation,
    source: str | None,
    unreached: frozenset[str] = frozenset(),
    known: Sequence[CheckResult] = (),
) -> AttestationResult:
    checks = evaluated(facts, unreached, known)
    return AttestationResult(
        checks=checks,
        scope=Scope.AUTHENTICITY if expectation.reference is None else Scope.POLICY,
        source=evidence.envelope.value if source is None else source,
        simulated=facts.line is not None and anchors.is_foreign(facts.line.name),
        product=None if facts.line is None else facts.line.name,
        at=now,
        claims=MappingProxyType(_claims(facts) | {"snp_revocation": revocation(checks)}),
        reference=None if expectation.reference is None else expectation.reference.name,
        assurance=expectation.assurance,
    )


def _gather(
    evidence: Evidence,
    endorsements: Endorsements,
    anchors: TrustAnchors,
    now: datetime,
    expectation: Expectation,
) -> Facts:
    line = product_line(evidence.report, endorsements)
    root = None if line is None else anchors.certificates.get(line.name)
    reference = expectation.reference
    return Facts(
        evidence=evidence,
        line=line,
        leaf=endorsements.leaf,
        intermediate=endorsements.issuer_of_leaf(),
        root=root,
        crls=tuple(crl for crl in endorsements.crls if root is not None and crl.issuer == root.subject),
        anchors=anchors,
        revocation=(None if reference is None else reference.revocation) or expectation.revocation,
        reference=reference,
        host_data=expectation.host_data,
        initdata=expectation.initdata,
        report_data=expectation.report_data,
        now=now if expectation.trusts_clock else None,
    )


def evaluated(
    facts: Facts, unreached: frozenset[str] = frozenset(), known: Sequence[CheckResult] = ()
) -> tuple[CheckResult, ...]:
    """Every check that applies, in order; those in `unreached`, and what needs them, are reported as not evaluated.

    `known`: results about the same facts but for certificates and lists; those that were evaluated stand.
    """
    made = {result.id: result for result in known if result.ok is not None}
    has_reference = facts.reference is not None
    results: dict[str, CheckResult | None] = {}
    for check in CHECKS:
        identifier, evaluate, needs, with_reference = check
        if identifier in made:
            results[identifier] = made[identifier]
        elif identifier in unreached:
            results[identifier] = _not_reached(identifier)
        elif with_reference and not has_reference:
            results[identifier] = None
        elif needs and not all((result := results[need]) is not None and result.ok for need in needs):
            results[identifier] = _waiting(identifier, needs, results)
        else:
            outcome = evaluate(facts)
            results[identifier] = None if outcome is None else CheckResult(identifier, *outcome)
    return tuple(result for result in results.values() if result is not None)


def _waiting(identifier: str, needs: Sequence[str], before: Mapping[str, CheckResult | None]) -> CheckResult | None:
    """The result of a check whose needs do not all hold."""
    if any(before[need] is None for need in needs):
        return None
    return _needing(identifier, tuple(need for need in needs if (result := before[need]) is None or not result.ok))


# Half of all checks wait for certificates when a report is looked at without them, always with these few words.
@lru_cache(maxsize=1024)
def _needing(identifier: str, waiting: tuple[str, ...]) -> CheckResult:
    return CheckResult(identifier, None, f"needs {', '.join(waiting)}", "")


@lru_cache(maxsize=1024)
def _not_reached(identifier: str) -> CheckResult:
    return CheckResult(identifier, None, "not reached", "")


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
    if facts.is_vlek and facts.leaf is not None and facts.leaf.vek.csp_id is not None:
        claims["snp_csp_id"] = facts.leaf.vek.csp_id
    if facts.line is not None:
        claims["snp_line"] = facts.line.name
        claims["snp_reported_tcb"] = str(facts.tcb(report.reported_tcb))
    return claims
