"""Evidence as it travels to a verifier: the JSON of CoCo's attestation agent, from any source."""

from __future__ import annotations

import json
from typing import Any

from attestation.errors import FormatError
from attestation.evidence.errors import Code, EvidenceError
from attestation.evidence.source import CERTIFICATE_KINDS, CollectedEvidence
from attestation.report.abi import parse_report
from attestation.report.coco import write_coco_evidence


def coco_document(evidence: CollectedEvidence) -> dict[str, Any]:
    """JSON-ready `{attestation_report, cert_chain}`, without a root.

    An agent's own document keeps all its fields. Raises EvidenceError(MALFORMED) for a report that the form cannot
    carry, see `write_coco_evidence`.
    """
    if evidence.document is not None:
        document: dict[str, Any] = json.loads(evidence.document)
        chain = document.get("cert_chain")
        if chain:
            kept = [entry for entry in chain if str(entry.get("cert_type", "")).upper() in CERTIFICATE_KINDS]
            document["cert_chain"] = kept
        return document
    try:
        return write_coco_evidence(parse_report(evidence.report), evidence.certificates)
    except FormatError as error:
        raise EvidenceError(evidence.source, Code.MALFORMED, str(error)) from None
