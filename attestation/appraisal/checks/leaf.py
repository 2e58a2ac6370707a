"""Does this leaf belong to this report: kind, key, chip. All of it, because others skipped one or the other.

A comparison of the common name with "VCEK" (it is "SEV-VCEK") left two other verifiers without a CHIP_ID check.
"""

from __future__ import annotations

from attestation.appraisal.check import CheckOutcome, Facts, check, required

_NEEDS = ("certificates/leaf",)


@check("leaf/type", needs=("certificates/leaf", "product/line", "report/signing-key"))
def kind(facts: Facts) -> CheckOutcome:
    """SIGNING_KEY ⇔ the leaf's name ⇔ its issuer's name."""
    leaf, line = required(facts.leaf), required(facts.line)
    name = "SEV-VLEK" if facts.is_vlek else "SEV-VCEK"
    wanted = (name, line.intermediate_name(vlek=facts.is_vlek))
    return CheckOutcome(
        (leaf.subject_name, leaf.issuer_name) == wanted,
        f"{leaf.subject_name} by {leaf.issuer_name}",
        f"{wanted[0]} by {wanted[1]}, as SIGNING_KEY says",
    )


@check("leaf/extensions", needs=(*_NEEDS, "report/signing-key"))
def extensions(facts: Facts) -> CheckOutcome:
    """A VCEK belongs to a chip (hwID), a VLEK to a provider (cspID); never both."""
    vek = required(facts.leaf).vek
    has = [name for name, value in (("hwID", vek.hwid), ("cspID", vek.csp_id)) if value is not None]
    wanted = ["cspID"] if facts.is_vlek else ["hwID"]
    return CheckOutcome(has == wanted, " and ".join(has) or "neither hwID nor cspID", f"{wanted[0]} alone")


@check("leaf/key", needs=_NEEDS)
def key(facts: Facts) -> CheckOutcome:
    actual = required(facts.leaf).key_name
    return CheckOutcome(actual == "EC secp384r1", actual, "EC secp384r1")


@check("leaf/provider", needs=("leaf/type", "leaf/extensions"), with_reference=True)
def provider(facts: Facts) -> CheckOutcome | None:
    """A VLEK is a provider's key for all its machines: the reference values name the providers that count."""
    if not facts.is_vlek:
        return None
    wanted = required(facts.reference).csp_ids
    actual = required(required(facts.leaf).vek.csp_id)
    return CheckOutcome(actual in wanted, f"cspID {actual}", "one of " + (", ".join(sorted(wanted)) or "none: cspIds"))


@check("leaf/chip-id", needs=("leaf/type", "leaf/extensions"))
def chip_id(facts: Facts) -> CheckOutcome | None:
    """hwID == the start of CHIP_ID, the rest of it zero. Turin has 8 bytes, the lines before 64. VLEKs name no chip."""
    if facts.is_vlek:
        return None
    hwid, actual, size = (
        required(required(facts.leaf).vek.hwid),
        facts.report.chip_id,
        required(facts.line).chip_id_size,
    )
    if not any(actual) and facts.reference is not None and facts.reference.masked_chip_id:
        return CheckOutcome(True, "CHIP_ID masked", "the leaf's hwID or, by these reference values, masked")
    return CheckOutcome(
        len(hwid) == size and actual == hwid.ljust(len(actual), b"\0"),
        f"CHIP_ID {actual.hex()}" if any(actual) else "CHIP_ID masked (all zero)",
        f"the leaf's hwID of {size} bytes {hwid.hex()}, then zero",
    )
