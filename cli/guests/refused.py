"""A refused guest as a guest entry for people to review: comments alone, so that no file with it loads a guest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from attestation.appraisal.result import AttestationResult
from server.text import printable

_SIGNATURE: Final = "signature/report"
_ADVICE: Final = (
    "Whoever can reach the verifier can have it record any report. Before you take this guest:",
    "- compare MEASUREMENT with what `morphisms guest measure` prints for the files that you installed;",
    "- compare the TCB with your machines': a floor is the least that you accept, not what one machine had;",
    "- state initdata: enforced only if you know it of the image and its command line (docs/guests.md).",
    'Then remove the "# " before the lines of the entry.',
)


def entry_of_refused(record: Mapping[str, Any], result: AttestationResult) -> list[str]:
    """Lines that start with `## ` are for the reader, those with `# ` hold the entry."""
    remarks = [
        f"Attestation {record['id']} of {record['at']}, refused: {record['reason']}. It is not trusted by this file.",
        *(["SIMULATED: the evidence proves nothing about any machine."] if result.simulated else []),
        _authenticity(result),
        "Checks that failed:",
        *(f"  {check.line()}" for check in result.failed),
        *_ADVICE,
    ]
    entry = _entry(result)
    return [f"## {printable(line)}" for line in remarks] + [f"# {printable(line)}" for line in entry]


def _authenticity(result: AttestationResult) -> str:
    signature = next((check for check in result.checks if check.id == _SIGNATURE), None)
    if signature is not None and signature.ok:
        return "The report's signature holds."
    if signature is not None and signature.ok is False:
        return "NOT AUTHENTIC: the report's signature does not hold."
    return "The signature was NOT EVALUATED, because another check failed before: anybody may have written this report."


def _entry(result: AttestationResult) -> list[str]:
    claims = result.claims
    tcb = ", ".join(part.replace("=", ": ") for part in claims.get("snp_reported_tcb", "").split())
    vlek = claims.get("snp_signing_key") == "vlek"
    return [
        f"reviewed-{claims['snp_measurement'][:12]}:",
        f"  product: {result.product or '…'}",
        f'  measurements: ["{claims["snp_measurement"]}"]',
        f"  minTcb: {{{tcb or '…'}}}  # REPORTED_TCB of the one machine",
        f'  policy: "{claims["snp_policy"]}"',
        f"  vmpl: {claims['snp_vmpl']}",
        *(["  signingKeys: [VLEK]", f'  cspIds: ["{claims.get("snp_csp_id", "…")}"]'] if vlek else []),
        f"  # its HOST_DATA, for an appraisal policy and not for a guest: {claims['snp_host_data']}",
    ]
