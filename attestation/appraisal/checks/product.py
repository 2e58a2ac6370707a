"""Which product line this is. Every check that reads a TCB needs `product/line`."""

from __future__ import annotations

from attestation.appraisal.check import CheckOutcome, Facts, check, required
from attestation.report.products import line_by_issuer_name, line_by_name, line_by_product_name


@check("product/line")
def line(facts: Facts) -> CheckOutcome:
    """By CPUID, which is signed; in version 2, which has none, by the leaf's issuer. An anchor exists for it."""
    report = facts.report
    if report.has_cpuid:
        said = f"CPUID {report.cpuid_fam_id:02x}/{report.cpuid_mod_id:02x}/{report.cpuid_step:x}"
    elif facts.leaf is not None:
        said = f"no CPUID in version {report.version}, issuer {facts.leaf.issuer_name}"
    else:
        said = f"no CPUID in version {report.version}, and no certificate"
    trusted = [name for name in facts.anchors.pins if (known := line_by_name(name)) and known.supported]
    name = "unknown" if facts.line is None else facts.line.name
    return CheckOutcome(name in trusted, f"{name}: {said}", f"one of {', '.join(trusted)}")


@check("product/certificate", needs=("product/line", "certificates/leaf"))
def certificate(facts: Facts) -> CheckOutcome:
    """The leaf's issuer and its productName name the same line."""
    leaf, wanted = required(facts.leaf), required(facts.line)
    product_name = leaf.vek.product_name
    named = None if product_name is None else line_by_product_name(product_name)
    return CheckOutcome(
        line_by_issuer_name(leaf.issuer_name) == wanted and named == wanted,
        f"issuer {leaf.issuer_name}, productName {product_name}",
        f"both {wanted.name}",
    )


@check("product/reference", needs=("product/line",), with_reference=True)
def reference(facts: Facts) -> CheckOutcome:
    actual, wanted = required(facts.line).name, required(facts.reference).product
    return CheckOutcome(actual == wanted, actual, wanted)
