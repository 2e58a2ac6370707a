"""`simulated`: client of `morphisms simulated-hardware`. Proves nothing about any machine, and the verdict says so."""

from __future__ import annotations

from attestation.errors import FormatError
from attestation.evidence.endpoint import get, parse_address
from attestation.evidence.errors import Code, EvidenceError
from attestation.evidence.source import CollectedEvidence, accept, require_report_data
from attestation.report.abi import REPORT_SIZE
from attestation.report.certificate_table import MAX_TABLE_SIZE, parse_certificate_table
from attestation.report.report_data import padded

NAME = "simulated"


class SimulatedHardware:
    """`address` is `http://HOST:PORT` or `unix:/PATH`. Raises EvidenceError(BAD_ADDRESS)."""

    name = NAME

    def __init__(self, address: str) -> None:
        self._address = parse_address(NAME, address)

    def report_data(self, digest: bytes) -> bytes:
        """Raw and zero-padded."""
        return padded(digest)

    def collect(self, report_data: bytes, *, timeout: float) -> CollectedEvidence:
        """See EvidenceSource. The answer is a report, then a GHCB certificate table."""
        require_report_data(report_data)
        body = get(
            NAME,
            self._address,
            f"/report?report_data={report_data.hex()}",
            timeout=timeout,
            limit=REPORT_SIZE + MAX_TABLE_SIZE,
            on_404=Code.REFUSED,
        )
        try:
            table = parse_certificate_table(body[REPORT_SIZE:])
        except FormatError as error:
            raise EvidenceError(NAME, Code.MALFORMED, str(error)) from None
        return accept(NAME, report_data, body[:REPORT_SIZE], table)
