"""Leaf, intermediate, pinned root: present, shaped as AMD shapes them, signed by one another, valid now."""

from __future__ import annotations

from attestation.appraisal.check import Check, CheckOutcome, Facts, check, required
from attestation.pki.certificates import REQUIRED_SIGNATURE_ALGORITHM, Certificate, is_signed_by

_RSA = "RSA-4096 e=65537"


@check("certificates/leaf")
def leaf(facts: Facts) -> CheckOutcome:
    if facts.leaf is None:
        return CheckOutcome(False, "none given", "a VCEK or VLEK certificate")
    return CheckOutcome(True, facts.leaf.subject_name, "a VCEK or VLEK certificate")


@check("certificates/intermediate", needs=("certificates/leaf",))
def intermediate(facts: Facts) -> CheckOutcome:
    wanted = required(facts.leaf).issuer_name
    if facts.intermediate is None:
        return CheckOutcome(False, "none given", wanted)
    return CheckOutcome(True, facts.intermediate.subject_name, wanted)


@check("certificates/root", needs=("product/line",))
def root(facts: Facts) -> CheckOutcome:
    wanted = required(facts.line).ark_name
    if facts.root is None:
        return CheckOutcome(False, "none given by the operator", wanted)
    return CheckOutcome(facts.root.subject_name == wanted, facts.root.subject_name, wanted)


@check("chain/anchor", needs=("certificates/root",))
def anchor(facts: Facts) -> CheckOutcome:
    """The root is the pinned one, byte for byte."""
    pinned = facts.anchors.pins[required(facts.line).name]
    actual = required(facts.root).sha256
    return CheckOutcome(actual == pinned, f"SHA-256 {actual}", f"SHA-256 {pinned}")


@check("chain/root", needs=("certificates/root",))
def root_signature(facts: Facts) -> CheckOutcome:
    certificate = required(facts.root)
    return _signed("root", certificate, certificate)


@check("chain/intermediate", needs=("certificates/intermediate", "chain/anchor"))
def intermediate_signature(facts: Facts) -> CheckOutcome:
    return _signed("intermediate", required(facts.intermediate), required(facts.root))


@check("chain/leaf", needs=("certificates/intermediate",))
def leaf_signature(facts: Facts) -> CheckOutcome:
    return _signed("leaf", required(facts.leaf), required(facts.intermediate))


def _signed(what: str, certificate: Certificate, issuer: Certificate) -> CheckOutcome:
    wanted = f"signed by {issuer.subject_name}, {REQUIRED_SIGNATURE_ALGORITHM}"
    if certificate.issuer != issuer.subject:
        return CheckOutcome(False, f"{what} names the issuer {certificate.issuer_name}", wanted)
    ok = is_signed_by(certificate.tbs, certificate.signature, issuer)
    return CheckOutcome(
        ok, f"{what} signed by {issuer.subject_name}" if ok else f"{what} has another signature", wanted
    )


@check("chain/algorithms", needs=("certificates/leaf", "certificates/intermediate", "certificates/root"))
def algorithms(facts: Facts) -> CheckOutcome:
    """The declared algorithms; the checks before have shown that the signatures were made with them."""
    declared = [
        certificate.signature_algorithm
        for certificate in (required(facts.leaf), required(facts.intermediate), required(facts.root))
    ]
    wrong = [algorithm for algorithm in declared if algorithm != REQUIRED_SIGNATURE_ALGORITHM]
    return CheckOutcome(not wrong, ", ".join(wrong) or REQUIRED_SIGNATURE_ALGORITHM, REQUIRED_SIGNATURE_ALGORITHM)


@check("chain/constraints", needs=("certificates/leaf", "certificates/intermediate", "certificates/root"))
def constraints(facts: Facts) -> CheckOutcome:
    """Keys, BasicConstraints and KeyUsage: only the two above may issue, the leaf may not."""
    end, middle, top = required(facts.leaf), required(facts.intermediate), required(facts.root)
    wrong = [f"{who.subject_name} has {who.key_name}" for who in (middle, top) if who.key_name != _RSA]
    wrong += [f"{who.subject_name} is no CA" for who in (middle, top) if not (who.is_ca and who.key_cert_sign)]
    if middle.path_length != 0:
        wrong.append(f"{middle.subject_name} has path length {middle.path_length}")
    if end.is_ca or end.key_cert_sign:
        wrong.append(f"{end.subject_name} is a CA")
    return CheckOutcome(
        not wrong, ", ".join(wrong) or "as required", f"CAs of {_RSA} with keyCertSign, path length 0, and a leaf"
    )


def _validity(identifier: str, which: str, needs: str) -> Check:
    @check(identifier, needs=(needs,))
    def evaluate(facts: Facts) -> CheckOutcome | None:
        if facts.now is None:
            return None
        certificate: Certificate = required(getattr(facts, which))
        return CheckOutcome(
            certificate.not_before <= facts.now <= certificate.not_after,
            f"at {facts.now.isoformat()}",
            certificate.validity,
        )

    return evaluate


leaf_validity = _validity("validity/leaf", "leaf", "certificates/leaf")
intermediate_validity = _validity("validity/intermediate", "intermediate", "certificates/intermediate")
root_validity = _validity("validity/root", "root", "certificates/root")
