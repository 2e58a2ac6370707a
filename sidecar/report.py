"""`morphisms-init --report`: what a report of this guest says, for the guest entry that people write beside Vault.

Nothing is checked: the report binds random bytes, and its signature is the verifier's to check. So the lines say what
this guest's firmware or a liar claims; compare them with `morphisms guest measure` and your machines.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any, Final

from attestation.errors import FormatError
from attestation.evidence import EvidenceError, collect_first
from attestation.report.abi import Report, parse_report
from attestation.report.products import ProductLine, line_by_cpuid
from attestation.report.tcb import decode_tcb
from plan.document import DATA_HUB, Plan
from sidecar.errors import SidecarError
from sidecar.reasons import Exit, Reason, evidence_reason
from sidecar.well_known_sources import WELL_KNOWN

_SECONDS: Final = 15.0


def show(plan: Plan | None, *, as_json: bool) -> Exit:
    """Print the fields on stdout, from the plan's sources, or without a plan from the well-known ones.

    Raises SidecarError.
    """
    if plan is not None and plan.data_hub:
        raise SidecarError(
            Reason.EVIDENCE_NOT_ENABLED,
            f"{DATA_HUB} gives no report; start the guest with"
            " agent.guest_components_rest_api=all and run --report without the plan",
            exit_code=Exit.EVIDENCE,
        )
    try:
        evidence = collect_first(WELL_KNOWN if plan is None else plan.evidence, os.urandom(48), timeout=_SECONDS)
        report = parse_report(evidence.report)
    except EvidenceError as error:
        raise SidecarError(
            evidence_reason(error.code), f"{error.source}: {error.detail}", exit_code=Exit.EVIDENCE
        ) from None
    except FormatError as error:
        raise SidecarError(Reason.EVIDENCE_MALFORMED, str(error), exit_code=Exit.EVIDENCE) from None
    line = line_by_cpuid(report.cpuid_fam_id, report.cpuid_mod_id) if report.has_cpuid else None
    simulated = evidence.source == "simulated" or (line is not None and line.simulated)
    fields = _fields(report, line)
    if as_json:
        document = {"source": evidence.source, "simulated": simulated, "verified": False} | fields
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
    else:
        label = " - SIMULATED: it proves nothing about any machine" if simulated else ""
        for name, value in ({"source": f"{evidence.source}{label}"} | fields).items():
            sys.stdout.write(f"{name:13}  {_text(value)}\n")
        sys.stdout.write("not verified: the report's signature is the verifier's to check\n")
    sys.stdout.flush()
    return Exit.PUBLISHED


def _fields(report: Report, line: ProductLine | None) -> dict[str, Any]:
    """By AMD's names; a TCB in its components where the processor is known, else in hex."""

    def tcb(raw: bytes) -> Any:
        return raw.hex() if line is None else decode_tcb(raw, line.tcb_layout).as_dict()

    return {
        "PRODUCT": None if line is None else line.name,
        "MEASUREMENT": report.measurement.hex(),
        "HOST_DATA": report.host_data.hex(),
        "REPORTED_TCB": tcb(report.reported_tcb),
        "COMMITTED_TCB": tcb(report.committed_tcb),
        "LAUNCH_TCB": tcb(report.launch_tcb),
        "POLICY": f"{report.policy:#x}",
        "VMPL": report.vmpl,
        "CHIP_ID": report.chip_id.hex(),
    }


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{part}={number}" for part, number in value.items())
    return "unknown: the report does not name it" if value is None else str(value)
