"""The report's own shape: version, must-be-zero bytes, who requested it, which key signs it."""

from __future__ import annotations

from attestation.appraisal.check import CheckOutcome, Facts, check
from attestation.report.abi import (
    NEWEST_VERSION,
    NO_MIGRATION_AGENT,
    OLDEST_VERSION,
    SIGNATURE_ALGORITHM_P384_SHA384,
    SigningKey,
    nonzero_reserved,
)
from attestation.report.envelopes import Envelope

_SIGNING_KEYS: dict[int, str] = {SigningKey.VCEK: "VCEK", SigningKey.VLEK: "VLEK"}


@check("report/version")
def version(facts: Facts) -> CheckOutcome:
    """Version 2 has no CPUID, so the product rests on the certificate alone: reference values require 3 by default."""
    low, high = OLDEST_VERSION, NEWEST_VERSION
    if facts.reference is not None:
        low, high = facts.reference.min_version, facts.reference.max_version
    return CheckOutcome(low <= facts.report.version <= high, str(facts.report.version), f"{low} to {high}")


@check("report/reserved")
def reserved(facts: Facts) -> CheckOutcome:
    found = nonzero_reserved(facts.report)
    advice = "not looked at in versions this library does not know" if facts.report.version > NEWEST_VERSION else ""
    return CheckOutcome(not found, ", ".join(found) or "all zero", "all zero", advice)


@check("report/signature-algorithm")
def signature_algorithm(facts: Facts) -> CheckOutcome:
    actual = facts.report.signature_algo
    return CheckOutcome(actual == SIGNATURE_ALGORITHM_P384_SHA384, str(actual), "1 (ECDSA P-384 with SHA-384)")


@check("report/requester")
def requester(facts: Facts) -> CheckOutcome:
    """A host can request reports as well, with REPORT_DATA of its choice; VMPL then is 0xFFFFFFFF."""
    return CheckOutcome(facts.report.vmpl <= 3, f"VMPL 0x{facts.report.vmpl:x}", "VMPL 0 to 3, a guest's own request")


@check("report/migration-agent")
def migration_agent(facts: Facts) -> CheckOutcome | None:
    if facts.reference is None or facts.reference.policy.migrate_ma:
        return None
    actual = facts.report.report_id_ma
    return CheckOutcome(
        actual == NO_MIGRATION_AGENT, f"REPORT_ID_MA {actual.hex()}", "ff in all bytes: no migration agent"
    )


@check("report/chip-key")
def chip_key(facts: Facts) -> CheckOutcome:
    masked = facts.report.mask_chip_key
    return CheckOutcome(
        not masked, f"MASK_CHIP_KEY={int(masked)}", "MASK_CHIP_KEY=0: a masked report carries no signature"
    )


@check("report/signing-key")
def signing_key(facts: Facts) -> CheckOutcome:
    accepted = frozenset(_SIGNING_KEYS.values()) if facts.reference is None else facts.reference.signing_keys
    name = _SIGNING_KEYS.get(facts.report.signing_key)
    return CheckOutcome(
        name in accepted, name or f"SIGNING_KEY {facts.report.signing_key}", " or ".join(sorted(accepted))
    )


@check("evidence/runtime-data")
def runtime_data(facts: Facts) -> CheckOutcome | None:
    """Of an Azure envelope: REPORT_DATA is the digest of the runtime data, then zero."""
    digest = facts.evidence.runtime_data_digest
    if facts.evidence.envelope is not Envelope.AZURE_HCL or digest is None:
        return None
    wanted = digest.ljust(64, b"\0")
    return CheckOutcome(
        facts.report.report_data == wanted,
        f"REPORT_DATA {facts.report.report_data.hex()}",
        f"digest of the envelope's runtime data {wanted.hex()}",
        "binds the paravisor's runtime data, not a guest process's request",
    )
