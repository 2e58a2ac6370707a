"""The envelopes that evidence arrives in. Each reader finds the report and the certificates, and labels the envelope.

The label matters: an Azure envelope's REPORT_DATA binds the paravisor's runtime data, not a guest process's request,
and must never pass for a report that a guest process requested.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from enum import StrEnum
from typing import NamedTuple

from attestation.errors import FormatError
from attestation.report.abi import REPORT_SIZE, Report, parse_report
from attestation.report.certificate_table import TableEntry, parse_certificate_table
from attestation.report.coco import parse_coco_evidence, parse_coco_json

IOCTL_RESPONSE_SIZE = 4000  # struct snp_report_resp, <linux/sev-guest.h>
_IOCTL_HEADER = struct.Struct("<II24s")

HCL_MAGIC = b"HCLA"
_HCL_HEADER = struct.Struct("<4sIIII3I")  # magic, version, report size, request type, status, reserved
_HCL_RUNTIME = struct.Struct("<IIIII")  # size, version, report type, hash type, size of the claims
_HCL_SNP = 2
_HCL_HASHES: dict[int, Callable[[bytes], bytes]] = {
    1: lambda data: hashlib.sha256(data).digest(),
    2: lambda data: hashlib.sha384(data).digest(),
    3: lambda data: hashlib.sha512(data).digest(),
}
MAX_HCL_SIZE = 64 * 1024  # the vTPM index holds 2,600 bytes


class Envelope(StrEnum):
    """The kinds of envelope."""

    RAW = "raw report"
    IOCTL = "sev-guest ioctl"
    CONFIGFS_TSM = "configfs-tsm"
    COCO = "CoCo attestation agent"
    AZURE_HCL = "Azure HCL"


class Evidence(NamedTuple):
    """A report, parsed once here, and what came with it. `report.raw` holds its 1,184 bytes.

    `runtime_data_digest`: of an Azure envelope, what REPORT_DATA must start with (rest zero); None for all others.
    """

    report: Report
    envelope: Envelope
    certificates: tuple[TableEntry, ...] = ()
    runtime_data_digest: bytes | None = None


def from_raw(raw: bytes) -> Evidence:
    """A bare report. Raises FormatError for another size than 1,184 bytes, or a version below 2."""
    return Evidence(parse_report(raw), Envelope.RAW)


def from_ioctl(response: bytes, certificates: bytes = b"") -> Evidence:
    """The 4,000-byte answer of SNP_GET_REPORT, or of SNP_GET_EXT_REPORT with its certificate buffer.

    Raises FormatError for a wrong size, a firmware status other than 0, or a wrong report size in it.
    """
    if len(response) != IOCTL_RESPONSE_SIZE:
        raise FormatError(f"ioctl response has {len(response)} bytes, required {IOCTL_RESPONSE_SIZE}")
    status, size, reserved = _IOCTL_HEADER.unpack_from(response)
    if status != 0:
        raise FormatError(f"firmware answered status 0x{status:x}, required 0")
    if size != REPORT_SIZE:
        raise FormatError(f"ioctl response holds {size} bytes, required {REPORT_SIZE}")
    if any(reserved):
        raise FormatError("ioctl response has reserved bytes set")
    report = response[_IOCTL_HEADER.size : _IOCTL_HEADER.size + REPORT_SIZE]
    return Evidence(parse_report(report), Envelope.IOCTL, parse_certificate_table(certificates))


def from_configfs(outblob: bytes, auxblob: bytes = b"") -> Evidence:
    """The two files of a configfs-tsm entry. Raises FormatError for a wrong size or certificate table."""
    return Evidence(parse_report(outblob), Envelope.CONFIGFS_TSM, parse_certificate_table(auxblob))


def from_coco(raw: bytes | str) -> Evidence:
    """The body of CoCo's `GET /aa/evidence`. Raises FormatError."""
    report, certificates = parse_coco_json(raw)
    return Evidence(parse_report(report), Envelope.COCO, certificates)


def from_coco_document(document: object) -> Evidence:
    """As `from_coco`, from the decoded JSON. Raises FormatError."""
    report, certificates = parse_coco_evidence(document)
    return Evidence(parse_report(report), Envelope.COCO, certificates)


def from_azure_hcl(raw: bytes) -> Evidence:
    """What an Azure confidential VM keeps at vTPM index 0x01400001: header, SNP report, runtime data.

    Raises FormatError, also for another kind of report (TDX) and for lengths that do not fit.
    """
    if not _HCL_HEADER.size + REPORT_SIZE + _HCL_RUNTIME.size <= len(raw) <= MAX_HCL_SIZE:
        raise FormatError(f"HCL envelope has {len(raw)} bytes")
    magic, version, size, request_type, *_ = _HCL_HEADER.unpack_from(raw)
    if magic != HCL_MAGIC or version not in (1, 2):
        raise FormatError(f"HCL envelope has version {version}, required 1 or 2, or a wrong signature")
    if request_type != _HCL_SNP or size < REPORT_SIZE:
        raise FormatError(
            f"HCL envelope has request type {request_type} and size {size}, required type {_HCL_SNP} (SNP)"
        )
    at = _HCL_HEADER.size + REPORT_SIZE
    _, _, report_type, hash_type, claims_size = _HCL_RUNTIME.unpack_from(raw, at)
    claims = raw[at + _HCL_RUNTIME.size :][:claims_size]
    if report_type != _HCL_SNP or hash_type not in _HCL_HASHES or len(claims) != claims_size:
        raise FormatError(
            f"HCL runtime data has report type {report_type}, hash type {hash_type}, {claims_size} bytes of claims"
        )
    report = parse_report(raw[_HCL_HEADER.size : at])
    return Evidence(report, Envelope.AZURE_HCL, (), _HCL_HASHES[hash_type](claims))


def read_evidence(raw: bytes) -> Evidence:
    """Tell the envelopes apart by size and first bytes, for files that people pass. Raises FormatError.

    A verifier knows which envelope it expects and calls that envelope's reader instead.
    """
    if len(raw) == REPORT_SIZE:
        return from_raw(raw)
    if raw[:4] == HCL_MAGIC:
        return from_azure_hcl(raw)
    if len(raw) == IOCTL_RESPONSE_SIZE and raw[:1] != b"{":
        return from_ioctl(raw)
    if raw.lstrip()[:1] == b"{":
        return from_coco(raw)
    raise FormatError(
        f"{len(raw)} bytes are not evidence of a known kind, required a report of {REPORT_SIZE} bytes, an ioctl"
        f" response of {IOCTL_RESPONSE_SIZE} bytes, CoCo evidence JSON or an Azure HCL envelope"
    )
