"""The interface of every source, and the test of its answer."""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Iterable
from typing import NamedTuple, Protocol

from attestation.errors import FormatError
from attestation.evidence.errors import Code, EvidenceError
from attestation.report.abi import REPORT_SIZE, parse_report
from attestation.report.certificate_table import TableEntry
from attestation.report.report_data import REPORT_DATA_SIZE

# Never the root: a verifier has its own, and one from a guest must not look like an offer.
CERTIFICATE_KINDS = frozenset({"VCEK", "VLEK", "ASK", "ASVK"})
_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", re.DOTALL)


class CollectedEvidence(NamedTuple):
    """One report of 1,184 bytes, as `source` gave it.

    `certificates`: leaf and intermediate in DER, as far as the platform hands them out. `document`: the CoCo evidence
    JSON as obtained, where that is the source's own form; `report` is then encoded from it.
    """

    source: str
    report: bytes
    certificates: tuple[TableEntry, ...] = ()
    document: bytes | None = None

    def __repr__(self) -> str:  # without the evidence
        return f"CollectedEvidence(source={self.source!r})"


class EvidenceSource(Protocol):
    """One place that reports come from. `name` is one of `order.SOURCES`."""

    @property
    def name(self) -> str: ...

    def report_data(self, digest: bytes) -> bytes:
        """The 64 bytes that bind a SHA-384 digest, in the encoding which passes this source unchanged."""
        ...

    def collect(self, report_data: bytes, *, timeout: float) -> CollectedEvidence:
        """A report whose REPORT_DATA is these 64 bytes, within `timeout` seconds. Raises EvidenceError."""
        ...


def require_report_data(report_data: bytes) -> None:
    """Raises ValueError unless there are 64 bytes: a mistake of the caller, not of the source."""
    if len(report_data) != REPORT_DATA_SIZE:
        raise ValueError(f"REPORT_DATA has {len(report_data)} bytes, required {REPORT_DATA_SIZE}")


def accept(
    source: str,
    report_data: bytes,
    report: bytes,
    certificates: Iterable[TableEntry],
    document: bytes | None = None,
) -> CollectedEvidence:
    """Evidence, if this is a report and the requested one. Raises EvidenceError.

    Signature and contents are the verifier's business; this only keeps a mix-up on this side from looking like a
    refusal on that one.
    """
    if len(report) != REPORT_SIZE:
        raise EvidenceError(source, Code.WRONG_LENGTH, f"report has {len(report)} bytes, required {REPORT_SIZE}")
    try:
        parsed = parse_report(report)
    except FormatError as error:
        raise EvidenceError(source, Code.MALFORMED, str(error)) from None
    if not hmac.compare_digest(parsed.report_data, report_data):
        raise EvidenceError(source, Code.WRONG_REPORT_DATA, "report binds other REPORT_DATA than requested")
    return CollectedEvidence(source, bytes(report), _without_root(source, certificates), document)


def _without_root(source: str, entries: Iterable[TableEntry]) -> tuple[TableEntry, ...]:
    kept: list[TableEntry] = []
    for entry in entries:
        if entry.kind in CERTIFICATE_KINDS and entry.data:
            kept += [TableEntry(entry.kind, der) for der in _as_der(source, entry)]
    return tuple(kept)


def _as_der(source: str, entry: TableEntry) -> list[bytes]:
    # Hosts put DER or PEM into the table; one form on the wire is enough.
    if not entry.data.lstrip().startswith(b"-----BEGIN"):
        return [entry.data]
    try:
        found = [base64.b64decode(b"".join(body.split()), validate=True) for body in _PEM.findall(entry.data)]
    except binascii.Error:
        found = []
    if not found:
        raise EvidenceError(source, Code.MALFORMED, f"{entry.kind} certificate is PEM that cannot be read")
    return found
