"""Is the verifier behind this TLS connection the one that the caller was told to trust? No I/O, no state.

A guest asks before it sends anything about itself, and so does an operator's command. The report in the verifier's
answer is appraised by the same checks as a guest's. Before them stand checks of the reference values themselves,
because signed ones come with the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple

from attestation.appraisal.appraise import Expectation, appraise
from attestation.appraisal.result import AttestationResult, CheckResult
from attestation.errors import CertificateError, FormatError
from attestation.pki.certificates import Certificate, parse_certificate, parse_certificates
from attestation.pki.crl import RevocationList
from attestation.pki.endorsements import guest_supplied
from attestation.pki.roots import TrustAnchors, amd_trust_anchors
from attestation.report.envelopes import Evidence, from_coco_document
from attestation.report.products import line_by_cpuid
from attestation.report.report_data import accepted
from kbs.attested_guest import AttestedAnswer
from kbs.base64url import encode
from kbs.reference_values import REQUIRE_CRL, SOFT_CRL, GuestReference
from kbs.references import References, ReferencesError, read_references
from kbs.verifier_attest import SignedReferences, VerifierAttest

SIGNATURE: Final = "references/signature"
SERIAL: Final = "references/serial"
CONFIGURATION: Final = "references/configuration"
FORMAT: Final = "evidence/format"
REPORT_DATA: Final = "guest/report-data"
_ROOT: Final = "ARK"


class VerifierResult(NamedTuple):
    """The decision on one answer, and every check behind it.

    `report`: the appraisal of the verifier's report; None where the answer had no values to compare it with, or no
    report. `serial`: that of the signed references; None where the caller has the values themselves. `policies` and
    `configuration`: as the answer says, attested only when `accepted`.
    """

    checks: tuple[CheckResult, ...]
    report: AttestationResult | None
    serial: int | None
    policies: bytes
    configuration: bytes

    @property
    def accepted(self) -> bool:
        """Every check was evaluated and holds."""
        return self.report is not None and all(check.ok is True for check in self.checks)

    def __bool__(self) -> bool:
        raise TypeError("a verifier's result is not a truth value; use .accepted")

    @property
    def failed(self) -> tuple[CheckResult, ...]:
        """The checks that were evaluated and do not hold."""
        return tuple(check for check in self.checks if check.ok is False)

    @property
    def simulated(self) -> bool:
        """The root that this rests on is not AMD's."""
        return self.report is not None and self.report.simulated

    @property
    def guest(self) -> str:
        """The name of the reference values that the verifier was compared with; empty without any."""
        return "" if self.report is None else self.report.reference or ""


def appraise_verifier(
    answer: AttestedAnswer,
    nonce: bytes,
    spki: bytes,
    attest: VerifierAttest,
    now: datetime,
    *,
    crls: Sequence[RevocationList] = (),
    trusts_clock: bool = False,
) -> VerifierResult:
    """Run every check and report them all. `nonce`: the 32 bytes of the request. `now` is aware.

    `spki`: SHA-256 of the SubjectPublicKeyInfo of the certificate that the handshake of the answer's own connection
    showed. Without `crls` no revocation list is demanded: a guest has no network of its own. `trusts_clock`: judge
    validity periods at `now`; a guest does not, because its host sets its clock.
    """
    checks: list[CheckResult] = []
    guests, configurations, serial = _values(answer, attest, checks)
    if configurations is not None:
        checks.append(
            CheckResult(
                CONFIGURATION,
                answer.configuration in configurations,
                f"configuration {encode(answer.configuration)}",
                "one of " + ", ".join(sorted(map(encode, configurations))),
            )
        )
    report: AttestationResult | None = None
    evidence = _evidence(answer, checks)
    if evidence is not None and guests:
        anchors = _anchors(evidence, attest)
        endorsements = guest_supplied(evidence)._replace(crls=tuple(crls))
        digest = accepted(answer.digest(nonce, spki))
        for guest in _candidates(guests, evidence):
            expectation = Expectation(
                guest if crls else guest._replace(revocation=None),
                digest,
                revocation=REQUIRE_CRL if crls else SOFT_CRL,
                trusts_clock=trusts_clock,
            )
            report = appraise(evidence, endorsements, anchors, now, expectation)
            if report.accepted:
                break
        checks += report.checks if report is not None else ()
    return VerifierResult(tuple(checks), report, serial, answer.policies, answer.configuration)


def _values(
    answer: AttestedAnswer, attest: VerifierAttest, checks: list[CheckResult]
) -> tuple[list[GuestReference], frozenset[bytes] | None, int | None]:
    """The guests that the verifier may be, the configurations that it may have (None for any), and the serial."""
    demanded = attest.references
    if not isinstance(demanded, SignedReferences):
        return [attest.limited(demanded.guest)], demanded.configurations, None
    wanted = "reference values signed by the configured signer"
    references: References | None = None
    try:
        references = read_references(answer.references, demanded.signer)
        actual = f"serial {references.serial}"
    except ReferencesError as error:
        actual = str(error) if answer.references else "the verifier sends none"
    checks.append(CheckResult(SIGNATURE, references is not None, actual, wanted))
    if references is None:
        return [], None, None
    is_new = references.serial >= demanded.min_serial
    checks.append(CheckResult(SERIAL, is_new, str(references.serial), f"{demanded.min_serial} or later"))
    # A chip that the caller does not list leaves no guest that could match; the check guest/chip-id says so.
    return [attest.limited(guest) for guest in references.guests], references.configurations, references.serial


def _evidence(answer: AttestedAnswer, checks: list[CheckResult]) -> Evidence | None:
    try:
        return from_coco_document(answer.evidence)
    except FormatError as error:
        checks.append(CheckResult(FORMAT, False, str(error), "a report and its certificates"))
        return None


def _anchors(evidence: Evidence, attest: VerifierAttest) -> TrustAnchors:
    """AMD's root as the answer brings it, which counts by the digest that is pinned in the code alone."""
    roots: list[Certificate] = []
    for entry in evidence.certificates:
        if entry.kind == _ROOT:
            try:
                roots += parse_certificates(entry.data)
            except CertificateError:
                continue
    anchors = amd_trust_anchors(roots)
    if not attest.simulated_root:
        return anchors
    try:
        return anchors.with_simulated(parse_certificate(attest.simulated_root.encode()))
    except CertificateError:
        # Without it no simulated report is trusted, and the check product/line says so.
        return anchors


def _candidates(guests: list[GuestReference], evidence: Evidence) -> list[GuestReference]:
    """The guests that match by product and measurement; without a match the first one, for the record."""
    report = evidence.report
    line = line_by_cpuid(report.cpuid_fam_id, report.cpuid_mod_id) if report.has_cpuid else None
    found = [
        guest
        for guest in guests
        if (line is None or line.name == guest.product) and report.measurement in guest.measurements
    ]
    return found or guests[:1]
