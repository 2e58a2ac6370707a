"""Which processor line this is. Everything that reads a TCB waits for the answer."""

from __future__ import annotations

import re

from attestation.appraisal.check import Facts, Finding, required, unit
from attestation.report.products import ProductLine, line_by_name, line_by_product_name

_LEAF_ISSUER = re.compile(r"SEV-(?:VLEK-)?([A-Za-z0-9]+)")


def issuer_line(issuer_name: str) -> ProductLine | None:
    """The line in an ASK's or ASVK's common name ("SEV-Milan", "SEV-VLEK-Milan")."""
    match = _LEAF_ISSUER.fullmatch(issuer_name)
    return line_by_name(match.group(1)) if match else None


@unit("product/line")
def line(facts: Facts) -> Finding:
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
    return Finding(name in trusted, f"{name}: {said}", f"one of {', '.join(trusted)}")


@unit("product/certificate", needs=("product/line", "certificates/leaf"))
def certificate(facts: Facts) -> Finding:
    """The leaf's issuer and its productName name the same line."""
    leaf, wanted = required(facts.leaf), required(facts.line)
    product_name = leaf.vek.product_name
    named = None if product_name is None else line_by_product_name(product_name)
    return Finding(
        issuer_line(leaf.issuer_name) == wanted and named == wanted,
        f"issuer {leaf.issuer_name}, productName {product_name}",
        f"both {wanted.name}",
    )


@unit("product/reference", needs=("product/line",), with_reference=True)
def reference(facts: Facts) -> Finding:
    actual, wanted = required(facts.line).name, required(facts.reference).product.name
    return Finding(actual == wanted, actual, wanted)
