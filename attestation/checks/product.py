"""Which processor line this is. Everything that reads a TCB waits for the answer."""

from __future__ import annotations

import re

from attestation.checks.unit import Facts, Finding, required, unit
from attestation.products import ProductLine, line_by_name, line_by_product_name

_LEAF_ISSUER = re.compile(r"SEV-(?:VLEK-)?([A-Za-z0-9]+)")


def issuer_line(issuer_name: str) -> ProductLine | None:
    """The line in an ASK's or ASVK's common name ("SEV-Milan", "SEV-VLEK-Milan")."""
    match = _LEAF_ISSUER.fullmatch(issuer_name)
    return line_by_name(match.group(1)) if match else None


@unit("product/line")
def line(facts: Facts) -> Finding:
    """CPUID, the leaf's issuer and its productName name one line, and an anchor exists for it."""
    report, said, lines = facts.report, [], []
    if report.has_cpuid:
        known = facts.cpuid_line.name if facts.cpuid_line else "unknown"
        said.append(f"CPUID {report.cpuid_fam_id:02x}/{report.cpuid_mod_id:02x}/{report.cpuid_step:x} {known}")
        lines.append(facts.cpuid_line)
    else:
        said.append(f"no CPUID in version {report.version}")
    if facts.leaf is not None:
        product_name = facts.leaf.vek.product_name
        said += [f"issuer {facts.leaf.issuer_name}", f"productName {product_name}"]
        lines.append(issuer_line(facts.leaf.issuer_name))
        lines.append(None if product_name is None else line_by_product_name(product_name))
    trusted = [name for name in facts.anchors.pins if (known_line := line_by_name(name)) and known_line.supported]
    first = lines[0] if lines else None
    ok = first is not None and first.name in trusted and all(each == first for each in lines)
    return Finding(ok, ", ".join(said), f"one of {', '.join(trusted)}, the same in all")


@unit("product/reference", needs=("product/line",), with_reference=True)
def reference(facts: Facts) -> Finding:
    actual, wanted = required(facts.line).name, required(facts.reference).product.name
    return Finding(actual == wanted, actual, wanted)
