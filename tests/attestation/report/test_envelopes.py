"""Envelopes: what is read out of them, and what is refused."""

from __future__ import annotations

import hashlib
import json
import struct

import pytest

from attestation.errors import FormatError
from attestation.pki.endorsements import from_table
from attestation.report.abi import REPORT_SIZE, parse_report
from attestation.report.certificate_table import KINDS, TableEntry, encode_certificate_table, parse_certificate_table
from attestation.report.coco import parse_coco_evidence, parse_coco_json
from attestation.report.envelopes import (
    Envelope,
    from_azure_hcl,
    from_coco,
    from_configfs,
    from_ioctl,
    from_raw,
    read_evidence,
)
from tests.attestation.reports import UNREAD_ENTRIES, field_values


@pytest.fixture(scope="module")
def report(milan):
    return milan.report(milan.leaf()[1])


def ioctl(report, status=0, size=REPORT_SIZE, reserved=bytes(24)):
    return (struct.pack("<II", status, size) + reserved + report).ljust(4000, b"\0")


def hcl(report, claims=b"{}", *, version=2, request=2, report_type=2, hash_type=1, magic=b"HCLA", size=None):
    head = magic + struct.pack("<III", version, REPORT_SIZE, request) + bytes(16)
    runtime = struct.pack("<IIIII", 20 + len(claims), 1, report_type, hash_type, len(claims) if size is None else size)
    return head + report + runtime + claims


def tcb_fields(raw, turin=False):
    if turin:
        return {"fmc": raw[0], "bootloader": raw[1], "tee": raw[2], "snp": raw[3], "microcode": raw[7]}
    return {"fmc": None, "bootloader": raw[0], "tee": raw[1], "snp": raw[6], "microcode": raw[7]}


def coco(raw, *, turin=False, chain=None):
    """The new writer's fields."""
    values = field_values(parse_report(raw))
    document = {name: list(value) if isinstance(value, bytes) else value for name, value in values.items()}
    for name in ("current_tcb", "reported_tcb", "committed_tcb", "launch_tcb"):
        document[name] = tcb_fields(values[name], turin)
    for which in ("current", "committed"):
        document[which] = {part: document.pop(f"{which}_{part}") for part in ("major", "minor", "build")}
    document["signature"] = {"r": document.pop("signature_r"), "s": document.pop("signature_s")}
    document["sig_algo"] = document.pop("signature_algo")
    document["plat_info"] = document.pop("platform_info")
    return {"attestation_report": document, "cert_chain": chain}


def old_coco(raw):
    """The old writer's: flat firmware versions, reserved arrays, no CPUID and no mitigation vectors."""
    evidence = coco(raw)
    document = evidence["attestation_report"]
    for name in ("cpuid_fam_id", "cpuid_mod_id", "cpuid_step", "launch_mit_vector", "current_mit_vector"):
        del document[name]
    for which in ("current", "committed"):
        nested = document.pop(which)
        document |= {f"{which}_{part}": value for part, value in nested.items()}
    for name in ("current_tcb", "reported_tcb", "committed_tcb", "launch_tcb"):
        del document[name]["fmc"]
        document[name]["_reserved"] = [0, 0, 0, 0]
    document["_author_key_en"] = document.pop("key_info")
    document["_reserved_0"] = 0
    document["_reserved_1"] = list(raw[0x188:0x1A0])
    document["_reserved_4"] = list(raw[0x1F8:0x2A0])
    return evidence


def test_sniffed_by_content(report):
    for data, envelope in (
        (report, Envelope.RAW),
        (ioctl(report), Envelope.IOCTL),
        (hcl(report), Envelope.AZURE_HCL),
        (json.dumps(coco(report)).encode(), Envelope.COCO),
        (b"  \n" + json.dumps(coco(report)).encode(), Envelope.COCO),
    ):
        evidence = read_evidence(data)
        assert (evidence.report.raw, evidence.envelope) == (report, envelope)


@pytest.mark.parametrize(
    "data", [b"", b"x", bytes(1183), bytes(1185), bytes(3999), b"-----BEGIN CERTIFICATE-----", b"{"]
)
def test_unknown_content(data):
    with pytest.raises(FormatError):
        read_evidence(data)


@pytest.mark.parametrize("size", [0, 1183, 1185])
def test_raw_and_outblob_have_an_exact_size(size):
    with pytest.raises(FormatError, match=str(size)):
        from_raw(bytes(size))
    with pytest.raises(FormatError, match=str(size)):
        from_configfs(bytes(size))


def test_configfs_with_and_without_auxblob(report):
    table = encode_certificate_table([TableEntry("VCEK", b"abc"), TableEntry("ASK", b"")])
    assert from_configfs(report).certificates == ()
    assert from_configfs(report, table).certificates == (TableEntry("VCEK", b"abc"), TableEntry("ASK", b""))


@pytest.mark.parametrize(
    "bent", [{"status": 0x16}, {"status": 0x27}, {"size": 1183}, {"size": 0}, {"reserved": b"\1" * 24}]
)
def test_ioctl_refusals(report, bent):
    with pytest.raises(FormatError):
        from_ioctl(ioctl(report, **bent))


def test_ioctl_of_another_size(report):
    for data in (ioctl(report)[:-1], ioctl(report) + b"\0"):
        with pytest.raises(FormatError, match="required 4000"):
            from_ioctl(data)


@pytest.mark.parametrize(("number", "name"), [(1, "sha256"), (2, "sha384"), (3, "sha512")])
def test_hcl_digest(report, number, name):
    evidence = from_azure_hcl(hcl(report, b'{"keys":[]}', hash_type=number) + b"padding")
    assert evidence.runtime_data_digest == hashlib.new(name, b'{"keys":[]}').digest()
    assert evidence.report.raw == report


@pytest.mark.parametrize(
    "bent",
    [{"version": 3}, {"request": 4}, {"report_type": 4}, {"hash_type": 0}, {"hash_type": 9}, {"magic": b"HCLB"},
     {"size": 3}, {"size": 0xFFFFFFFF}],
)  # fmt: skip
def test_hcl_refusals(report, bent):
    with pytest.raises(FormatError):
        from_azure_hcl(hcl(report, **bent))


def test_hcl_short_and_long(report):
    for data in (hcl(report)[:1200], b"HCLA", hcl(report) + bytes(70_000)):
        with pytest.raises(FormatError):
            from_azure_hcl(data)


def test_table_round_trip():
    entries = tuple(TableEntry(kind, kind.encode()) for kind in KINDS.values())
    assert parse_certificate_table(encode_certificate_table(entries)) == entries
    assert parse_certificate_table(b"") == ()
    assert parse_certificate_table(bytes(24)) == ()


def test_table_with_an_unknown_guid():
    raw = bytes(range(16)) + struct.pack("<II", 48, 2) + bytes(24) + b"ab"
    (entry,) = parse_certificate_table(raw)
    assert entry == TableEntry("00010203-0405-0607-0809-0a0b0c0d0e0f", b"ab")


def test_table_guid_byte_order():
    raw = bytes.fromhex("63da758de6644564adc5f4b93be8accd") + struct.pack("<II", 0, 1) + bytes(24)
    assert parse_certificate_table(raw)[0].kind == "VCEK"


@pytest.mark.parametrize(
    "raw",
    [
        bytes(23),
        b"\1" * 24,
        b"\1" * 16 + struct.pack("<II", 48, 1) + bytes(24),
        b"\1" * 16 + struct.pack("<II", 0xFFFFFFFF, 0xFFFFFFFF) + bytes(24),
        (b"\1" * 16 + bytes(8)) * 17 + bytes(24),
        bytes(0x4001),
    ],
)
def test_table_refusals(raw):
    with pytest.raises(FormatError):
        parse_certificate_table(raw)


def test_table_writer_refuses():
    with pytest.raises(FormatError, match="kind"):
        encode_certificate_table([TableEntry("FOO", b"")])
    with pytest.raises(FormatError):
        encode_certificate_table([TableEntry("ASK", bytes(0x4000))])


def test_table_to_collateral(milan):
    leaf = milan.leaf()[0]
    given = from_table(
        [
            TableEntry("ARK", milan.ark.der),
            TableEntry("ASK", b"garbage"),
            TableEntry("ASK", milan.ask().der),
            TableEntry("VCEK", leaf.der),
        ]
    )
    assert given.leaf == leaf
    assert [certificate.subject_name for certificate in given.intermediates] == ["SEV-Milan"]


def test_a_guest_cannot_make_us_check_many_signatures(milan):
    given = from_table([TableEntry("ASK", milan.ask().der)] * 16)
    assert len(given.intermediates) == 4


@pytest.mark.parametrize("line", ["Milan", "Genoa", "Turin"])
@pytest.mark.parametrize("version", [2, 3, 5])
def test_coco_re_encodes_to_the_signed_bytes(platform_of, line, version):
    platform = platform_of(line)
    cpuid = {} if version > 2 else {"cpuid_fam_id": 0, "cpuid_mod_id": 0, "cpuid_step": 0}
    mitigations = {"launch_mit_vector": 5, "current_mit_vector": 7} if version == 5 else {}
    raw = platform.report(platform.leaf()[1], version=version, **cpuid, **mitigations)
    evidence = coco(raw, turin=line == "Turin")
    assert from_coco(json.dumps(evidence)).report.raw == raw
    if version == 2:
        for name in ("cpuid_fam_id", "cpuid_mod_id", "cpuid_step"):
            evidence["attestation_report"][name] = None
        assert parse_coco_evidence(evidence)[0] == raw
    if version < 5:
        for name in ("launch_mit_vector", "current_mit_vector"):
            del evidence["attestation_report"][name]
        assert parse_coco_evidence(evidence)[0] == raw


@pytest.mark.parametrize("version", [2, 3, 5])
def test_coco_old_field_set(milan, version):
    raw = milan.report(milan.leaf()[1], version=version, launch_mit_vector=5 if version == 5 else 0)
    assert parse_coco_evidence(old_coco(raw))[0] == raw


def test_coco_layout_must_agree_with_cpuid(milan, platform_of):
    raw = milan.report(milan.leaf()[1])
    with pytest.raises(FormatError, match="required milan by CPUID"):
        parse_coco_evidence(coco(raw, turin=True))
    turin = platform_of("Turin")
    with pytest.raises(FormatError, match="required turin by CPUID"):
        parse_coco_evidence(coco(turin.report(turin.leaf()[1])))


def test_coco_chain(milan, report):
    leaf = milan.leaf()[0]
    evidence = from_coco(json.dumps(coco(report, chain=[{"cert_type": "vcek", "data": list(leaf.der)}])))
    assert from_table(evidence.certificates).leaf == leaf
    del (document := coco(report))["cert_chain"]
    assert parse_coco_evidence(document)[1] == ()


@pytest.mark.parametrize("entry", UNREAD_ENTRIES)
def test_coco_entries_that_nothing_reads_are_left_out(milan, report, entry):
    """The host's table with the same GUID is judged as without it; so is the agent's."""
    leaf = {"cert_type": "VCEK", "data": list(milan.leaf()[0].der)}
    without = from_table(from_coco(json.dumps(coco(report, chain=[leaf]))).certificates)
    for chain in ([entry, leaf], [leaf, entry], [leaf, entry, entry]):
        evidence = from_coco(json.dumps(coco(report, chain=chain)))
        assert from_table(evidence.certificates) == without
        assert evidence.report.raw == report


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("version", -1), ("version", 1 << 32), ("version", True), ("version", "3"), ("version", 3.0), ("version", None),
        ("policy", 1 << 64), ("policy", {}), ("chip_id", [0] * 63), ("chip_id", [0] * 65), ("chip_id", [256] * 64),
        ("chip_id", [-1] * 64), ("chip_id", ["0"] * 64), ("chip_id", "00" * 64), ("signature", None),
        ("signature", {"r": [0] * 72}), ("current_tcb", None), ("current_tcb", {"bootloader": 1}), ("current", []),
        ("reported_tcb", {"fmc": 1, "bootloader": 1, "tee": 0, "snp": 8, "microcode": 1}), ("cpuid_fam_id", 256),
        ("reported_tcb", {"bootloader": 256, "tee": 0, "snp": 8, "microcode": 1}), ("launch_mit_vector", []),
    ],
)  # fmt: skip
def test_coco_wrong_fields(report, name, value):
    evidence = coco(report)
    evidence["attestation_report"][name] = value
    with pytest.raises(FormatError):
        parse_coco_evidence(evidence)


@pytest.mark.parametrize(
    "chain",
    [{}, [None], [{}], [{"cert_type": 1, "data": []}], [{"cert_type": "VCEK", "data": "x"}],
     [{"cert_type": "VCEK", "data": [256]}], [{"cert_type": "VCEK", "data": []}] * 17,
     [{"cert_type": "V" * 65, "data": []}]],
)  # fmt: skip
def test_coco_wrong_chains(report, chain):
    with pytest.raises(FormatError):
        parse_coco_evidence(coco(report, chain=chain))


@pytest.mark.parametrize(
    "raw", ["", "null", "[]", "1", "[" * 100_000, '{"a":' * 20_000, "NaN", "9" * 5000, b"\xff\xfe{"]
)
def test_coco_not_evidence(raw):
    with pytest.raises(FormatError):
        parse_coco_json(raw)


def test_coco_size_limit():
    with pytest.raises(FormatError, match="at most"):
        parse_coco_json(" " * (256 * 1024 + 1))
