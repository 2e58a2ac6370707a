"""SNP evidence of CoCo's attestation agent: virtee/sev's report struct as JSON, field by field; read and written.

The agent passes no bytes, so the report is encoded once from the fields; the signature then proves the encoding.
Old writers lack the CPUID and mitigation fields or name things differently; their reserved arrays carry the bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from attestation.errors import FormatError
from attestation.report.abi import CPUID_VERSION, MITIGATION_VERSION, SIZES, FirmwareVersion, Report, encode_report
from attestation.report.certificate_table import TableEntry
from attestation.report.products import TcbLayout, line_by_cpuid
from attestation.report.tcb import Tcb, decode_tcb, encode_tcb

MAX_EVIDENCE_SIZE = 256 * 1024  # a real one with a leaf is 7 KB; four certificates as lists of integers are 35 KB
MAX_CERTIFICATES = 16

_BYTES = ("family_id", "image_id", "report_data", "measurement", "host_data", "id_key_digest", "author_key_digest",
          "report_id", "report_id_ma", "chip_id")  # fmt: skip
_TCBS = ("current_tcb", "reported_tcb", "committed_tcb", "launch_tcb")
_OPTIONAL = ("cpuid_fam_id", "cpuid_mod_id", "cpuid_step", "launch_mit_vector", "current_mit_vector")


def parse_coco_json(raw: bytes | str) -> tuple[bytes, tuple[TableEntry, ...]]:
    """The 1,184 bytes of the report and the certificates that came along, from `GET /aa/evidence`'s body.

    Raises FormatError for anything that is not such evidence.
    """
    if len(raw) > MAX_EVIDENCE_SIZE:
        raise FormatError(f"evidence has {len(raw)} bytes, required at most {MAX_EVIDENCE_SIZE}")
    try:
        document = json.loads(raw if isinstance(raw, str) else raw.decode())
    except (ValueError, RecursionError):
        raise FormatError("evidence is not JSON") from None
    return parse_coco_evidence(document)


def parse_coco_evidence(document: object) -> tuple[bytes, tuple[TableEntry, ...]]:
    """As `parse_coco_json`, from the decoded JSON."""
    evidence = _object(document, "evidence")
    report = _report(_object(evidence.get("attestation_report"), "attestation_report"))
    chain = evidence.get("cert_chain")
    if chain is None:
        return report, ()
    if not isinstance(chain, list) or len(chain) > MAX_CERTIFICATES:
        raise FormatError(f"cert_chain is not a list of at most {MAX_CERTIFICATES} certificates")
    certificates = (_certificate(entry, f"cert_chain[{number}]") for number, entry in enumerate(chain))
    return report, tuple(certificate for certificate in certificates if certificate is not None)


def write_coco_evidence(report: Report, certificates: Iterable[TableEntry]) -> dict[str, Any]:
    """JSON-ready `{attestation_report, cert_chain}`, which `parse_coco_evidence` reads back.

    Raises FormatError when the report would not come back byte for byte: the form has no place for some reserved bytes,
    and the signature would break at the verifier.
    """
    document = {
        "attestation_report": _fields(report),
        "cert_chain": [{"cert_type": entry.kind, "data": list(entry.data)} for entry in certificates],
    }
    encoded, _ = parse_coco_evidence(document)
    if encoded != report.raw:
        raise FormatError("report has reserved bytes that the JSON form cannot carry")
    return document


def _report(source: Mapping[str, Any]) -> bytes:
    values: dict[str, int | bytes] = {name: _bytes(source, name, SIZES[name]) for name in _BYTES}
    values["version"] = _integer(source, "version")
    values["guest_svn"] = _integer(source, "guest_svn")
    values["policy"] = _integer(source, "policy")
    values["vmpl"] = _integer(source, "vmpl")
    values["signature_algo"] = _integer(source, "sig_algo")
    values["platform_info"] = _integer(source, "plat_info")
    key_name = next((name for name in ("key_info", "_author_key_en", "author_key_en") if name in source), "key_info")
    values["key_info"] = _integer(source, key_name)
    for name in _OPTIONAL:
        values[name] = 0 if source.get(name) is None else _integer(source, name)
    for which in ("current", "committed"):
        # New writers nest {major, minor, build}, old ones have current_major and so on.
        nested = _object(source[which], which) if which in source else None
        for part in ("major", "minor", "build"):
            name = f"{which}_{part}"
            values[name] = _integer(source, name) if nested is None else _integer(nested, part)
    layout = _layout(source, values)
    for name in _TCBS:
        values[name] = _tcb(_object(source.get(name), name), name, layout)
    signature = _object(source.get("signature"), "signature")
    values["signature_r"] = _bytes(signature, "r", 72)
    values["signature_s"] = _bytes(signature, "s", 72)
    encoded = encode_report(values)
    # virtee/sev before CPUID and mitigation fields kept these bytes in reserved arrays.
    for name, offset, size in (("_reserved_1", 0x188, 24), ("_reserved_4", 0x1F8, 168)):
        if name in source and not any(field in source for field in _OPTIONAL):
            encoded = encoded[:offset] + _bytes(source, name, size) + encoded[offset + size :]
    return encoded


def _layout(source: Mapping[str, Any], values: Mapping[str, int | bytes]) -> TcbLayout:
    current = _object(source.get("current_tcb"), "current_tcb")
    layout: TcbLayout = "milan" if current.get("fmc") is None else "turin"
    version, family, model = values["version"], values["cpuid_fam_id"], values["cpuid_mod_id"]
    if isinstance(version, int) and version >= CPUID_VERSION and isinstance(family, int) and isinstance(model, int):
        line = line_by_cpuid(family, model)
        if line is not None and line.tcb_layout != layout:
            raise FormatError(f"current_tcb has the {layout} layout, required {line.tcb_layout} by CPUID ({line.name})")
    return layout


def _tcb(source: Mapping[str, Any], name: str, layout: TcbLayout) -> bytes:
    parts = {part: _integer(source, part) for part in ("bootloader", "tee", "snp", "microcode")}
    fmc = source.get("fmc")
    try:
        return encode_tcb(Tcb(**parts, fmc=None if fmc is None else _integer(source, "fmc")), layout)
    except FormatError as error:
        raise FormatError(f"{name}: {error}") from None


def _certificate(entry: object, where: str) -> TableEntry | None:
    """The entry; None for one of a kind that virtee/sev does not name.

    The agent passes the host's whole table on. An unknown GUID is `CertType::OTHER(Uuid)` there, which serde writes as
    the object `{"OTHER": "ecae0c0f-…"}` where known kinds are strings. Nothing reads such an entry.
    """
    source = _object(entry, where)
    kind = source.get("cert_type")
    if isinstance(kind, dict) and len(kind) == 1:
        return None
    if not isinstance(kind, str) or len(kind) > 64 or not (kind.isascii() and kind.isprintable()):
        raise FormatError(f"{where}.cert_type is not a name")
    data = source.get("data")
    if not isinstance(data, list) or len(data) > MAX_EVIDENCE_SIZE:
        raise FormatError(f"{where}.data is not a list of bytes")
    return TableEntry(kind.upper(), _octets(data, f"{where}.data"))


def _object(value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise FormatError(f"{where} is not an object")
    return value


def _integer(source: Mapping[str, Any], name: str) -> int:
    value = source.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 64:
        raise FormatError(f"{name} is not an unsigned integer of at most 64 bits")
    return value


def _bytes(source: Mapping[str, Any], name: str, size: int) -> bytes:
    value = source.get(name)
    if not isinstance(value, list) or len(value) != size:
        raise FormatError(f"{name} is not a list of {size} bytes")
    return _octets(value, name)


def _octets(value: list[Any], name: str) -> bytes:
    try:
        return bytes(value)
    except (TypeError, ValueError):
        raise FormatError(f"{name} is not a list of bytes") from None


def _layout_of(report: Report) -> TcbLayout:
    line = line_by_cpuid(report.cpuid_fam_id, report.cpuid_mod_id) if report.has_cpuid else None
    if line is not None:
        return line.tcb_layout
    # Version 2 does not name its processor; from Turin on, CHIP_ID has 8 bytes and then zero.
    return "turin" if any(report.chip_id[:8]) and not any(report.chip_id[8:]) else "milan"


def _fields(report: Report) -> dict[str, Any]:
    layout = _layout_of(report)

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
