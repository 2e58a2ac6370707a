"""Revocation lists: made by the root, recent enough, and without the certificates in use."""

from __future__ import annotations

from attestation.appraisal.check import Check, CheckOutcome, Facts, check, required
from attestation.pki.certificates import REQUIRED_SIGNATURE_ALGORITHM, Certificate, is_signed_by
from attestation.pki.crl import RevocationList
from kbs.reference_values import RevocationAction


@check("crl/present", needs=("certificates/root",))
def present(facts: Facts) -> CheckOutcome:
    """The list of the leaf's own kind: the other one has the same issuer, and says nothing about this leaf."""
    kind, other = ("VLEKs", "VCEKs") if facts.is_vlek else ("VCEKs", "VLEKs")
    wanted = f"a revocation list for {kind} by {required(facts.root).subject_name}"
    found = _of_own_kind(facts)
    if found:
        return CheckOutcome(True, f"{len(found)} given", wanted)
    actual = f"{len(facts.crls)} given, for {other}" if facts.crls else "none given"
    accepted = facts.revocation.missing is RevocationAction.ACCEPT
    return CheckOutcome(accepted, actual, wanted, "revocation was not checked" if accepted else "")


@check("crl/signature", needs=("crl/present", "chain/anchor"))
def signature(facts: Facts) -> CheckOutcome | None:
    """By the root itself, not by the ASK."""
    if not facts.crls:
        return None
    wrong = [crl for crl in facts.crls if not _is_genuine(crl, required(facts.root))]
    return CheckOutcome(
        not wrong,
        f"{len(wrong)} of {len(facts.crls)} not signed by {required(facts.root).subject_name}" if wrong else "genuine",
        f"signed by {required(facts.root).subject_name}, {REQUIRED_SIGNATURE_ALGORITHM}",
    )


@check("crl/fresh", needs=("crl/signature",))
def fresh(facts: Facts) -> CheckOutcome | None:
    found = _of_own_kind(facts)
    if not found:
        return None
    newest = max(found, key=lambda crl: crl.this_update)
    until = "without an end" if newest.next_update is None else f"to {newest.next_update.isoformat()}"
    required_time = f"{newest.this_update.isoformat()} {until}"
    at = "without a clock" if facts.now is None else f"at {facts.now.isoformat()}"
    if facts.now is not None and newest.is_fresh(facts.now):
        return CheckOutcome(True, at, required_time)
    accepted = facts.revocation.stale is RevocationAction.ACCEPT
    return CheckOutcome(accepted, at, required_time, "the newest list is stale" if accepted else "")


def _not_listed(identifier: str, which: str, needs: str) -> Check:
    @check(identifier, needs=("crl/signature", needs))
    def evaluate(facts: Facts) -> CheckOutcome | None:
        if not facts.crls:
            return None
        certificate: Certificate = required(getattr(facts, which))
        # Old lists count as well: a revocation is for good.
        listed = any(certificate.serial in crl.serials for crl in facts.crls)
        return CheckOutcome(
            not listed,
            f"{certificate.subject_name} serial {certificate.serial} {'is revoked' if listed else 'not listed'}",
            "not on the root's revocation lists",
        )

    return evaluate


intermediate_not_revoked = _not_listed("crl/intermediate", "intermediate", "certificates/intermediate")
leaf_not_revoked = _not_listed("crl/leaf", "leaf", "certificates/leaf")


def _of_own_kind(facts: Facts) -> list[RevocationList]:
    return [crl for crl in facts.crls if crl.for_vleks == facts.is_vlek]


def _is_genuine(crl: RevocationList, root: Certificate) -> bool:
    return (
        crl.signature_algorithm == REQUIRED_SIGNATURE_ALGORITHM
        and root.crl_sign
        and is_signed_by(crl.tbs, crl.signature, root)
    )
