"""Evidence as it travels to a verifier: the JSON of CoCo's attestation agent, whatever source it came from.

The inverse of `attestation.report.coco`: virtee/sev's report struct, field by field, as KBS clients send it.
"""

from __future__ import annotations

import json
from typing import Any

from attestation.errors import FormatError
from attestation.evidence.errors import Code, EvidenceError
from attestation.evidence.source import CERTIFICATE_KINDS, Evidence
from attestation.report.abi import CPUID_VERSION, MITIGATION_VERSION, FirmwareVersion, Report, parse_report
from attestation.report.coco import parse_coco_evidence
from attestation.report.products import TcbLayout, line_by_cpuid
from attestation.report.tcb import decode_tcb


def coco_document(evidence: Evidence) -> dict[str, Any]:
    """JSON-ready `{attestation_report, cert_chain}`, without a root.

    An agent's own document passes with all its fields. Raises EvidenceError(MALFORMED) when the report does not come
    back byte for byte: the form has no place for some reserved bytes, and the signature would break at the verifier.
    """
    if evidence.document is not None:
        document: dict[str, Any] = json.loads(evidence.document)
        chain = document.get("cert_chain")
        if chain:
            kept = [entry for entry in chain if str(entry.get("cert_type", "")).upper() in CERTIFICATE_KINDS]
            document["cert_chain"] = kept
        return document
    report = parse_report(evidence.report)
    document = {
        "attestation_report": _report(report, _layout(report)),
        "cert_chain": [{"cert_type": entry.kind, "data": list(entry.data)} for entry in evidence.certificates],
    }
    try:
        encoded, _ = parse_coco_evidence(document)
    except FormatError as error:
        raise EvidenceError(evidence.source, Code.MALFORMED, str(error)) from None
    if encoded != evidence.report:
        raise EvidenceError(
            evidence.source, Code.MALFORMED, "report has reserved bytes that the JSON form cannot carry"
        )
    return document


def _layout(report: Report) -> TcbLayout:
    line = line_by_cpuid(report.cpuid_fam_id, report.cpuid_mod_id) if report.has_cpuid else None
    if line is not None:
        return line.tcb_layout
    # Version 2 does not name its processor; from Turin on, CHIP_ID has 8 bytes and then zero.
    return "turin" if any(report.chip_id[:8]) and not any(report.chip_id[8:]) else "milan"


def _report(report: Report, layout: TcbLayout) -> dict[str, Any]:
    def tcb(raw: bytes) -> dict[str, int | None]:
        value = decode_tcb(raw, layout)
        return {"fmc": value.fmc, **value.as_dict()}

    def firmware(version: FirmwareVersion) -> dict[str, int]:
        return {"major": version.major, "minor": version.minor, "build": version.build}

    has_cpuid = report.version >= CPUID_VERSION
    has_mitigations = report.version >= MITIGATION_VERSION
    return {
        "version": report.version,
        "guest_svn": report.guest_svn,
        "policy": report.policy,
        "family_id": list(report.family_id),
        "image_id": list(report.image_id),
        "vmpl": report.vmpl,
        "sig_algo": report.signature_algo,
        "current_tcb": tcb(report.current_tcb),
        "plat_info": report.platform_info,
        "key_info": report.key_info,
        "report_data": list(report.report_data),
        "measurement": list(report.measurement),
        "host_data": list(report.host_data),
        "id_key_digest": list(report.id_key_digest),
        "author_key_digest": list(report.author_key_digest),
        "report_id": list(report.report_id),
        "report_id_ma": list(report.report_id_ma),
        "reported_tcb": tcb(report.reported_tcb),
        "cpuid_fam_id": report.cpuid_fam_id if has_cpuid else None,
        "cpuid_mod_id": report.cpuid_mod_id if has_cpuid else None,
        "cpuid_step": report.cpuid_step if has_cpuid else None,
        "chip_id": list(report.chip_id),
        "committed_tcb": tcb(report.committed_tcb),
        "current": firmware(report.current_firmware),
        "committed": firmware(report.committed_firmware),
        "launch_tcb": tcb(report.launch_tcb),
        "launch_mit_vector": report.launch_mit_vector if has_mitigations else None,
        "current_mit_vector": report.current_mit_vector if has_mitigations else None,
        "signature": {"r": list(report.signature_r), "s": list(report.signature_s)},
    }
