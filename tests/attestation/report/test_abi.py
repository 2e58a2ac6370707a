"""Layouts: report, TCB, product lines."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestation.errors import FormatError
from attestation.report.abi import (
    LAYOUT,
    REPORT_SIZE,
    FirmwareVersion,
    GuestPolicy,
    encode_report,
    nonzero_reserved,
    parse_report,
    platform_info_names,
)
from attestation.report.products import (
    GENOA,
    LINES,
    MILAN,
    TURIN,
    VENICE,
    line_by_cpuid,
    line_by_name,
    line_by_product_name,
)
from attestation.report.tcb import Tcb, decode_tcb, encode_tcb
from tests.attestation.reports import field_values

SIZES = {"B": 1, "I": 4, "Q": 8}


def of(form):
    if form.endswith("s"):
        return st.binary(min_size=int(form[:-1]), max_size=int(form[:-1]))
    return st.integers(0, (1 << 8 * SIZES[form]) - 1)


VALUES = st.fixed_dictionaries({name: of(form) for name, (_, form) in LAYOUT.items()} | {"version": st.integers(2, 99)})


@given(VALUES)
def test_fields_survive_the_round_trip(values):
    raw = encode_report(values)
    report = parse_report(raw)
    assert field_values(report) == values
    assert encode_report(field_values(report)) == report.raw == raw


@given(st.binary(min_size=REPORT_SIZE, max_size=REPORT_SIZE))
def test_any_bytes_parse_or_are_refused_by_version(raw):
    if int.from_bytes(raw[:4], "little") < 2:
        with pytest.raises(FormatError, match="version"):
            parse_report(raw)
    else:
        report = parse_report(raw)
        assert report.raw == raw
        nonzero_reserved(report)


@pytest.mark.parametrize("size", [0, 1, 0x2A0, REPORT_SIZE - 1, REPORT_SIZE + 1, 4000])
def test_exact_size(size):
    with pytest.raises(FormatError, match=f"{size} bytes, required 1184"):
        parse_report(bytes(size))


def test_fields_are_at_amds_offsets():
    """A byte at a field's offset shows up in that field alone."""
    zero = bytearray(REPORT_SIZE)
    zero[0] = 5
    base = field_values(parse_report(bytes(zero)))
    covered = set()
    for name, (offset, form) in LAYOUT.items():
        size = int(form[:-1]) if form.endswith("s") else SIZES[form]
        covered |= set(range(offset, offset + size))
        raw = bytearray(zero)
        raw[offset + size - 1] = 0x5A
        changed = {key for key, value in field_values(parse_report(bytes(raw))).items() if value != base[key]}
        assert changed == {name}
    for offset in set(range(REPORT_SIZE)) - covered:
        raw = bytearray(zero)
        raw[offset] = 1
        assert nonzero_reserved(parse_report(bytes(raw))), hex(offset)
    assert not nonzero_reserved(parse_report(bytes(zero)))


def test_encoding_refuses():
    values = field_values(parse_report(bytes([3]) + bytes(REPORT_SIZE - 1)))
    for wrong in ({"vmpl": -1}, {"vmpl": 1 << 32}, {"chip_id": b"short"}, {"measurement": 7}, {"vmpl": "x"}):
        with pytest.raises(FormatError):
            encode_report(values | wrong)
    del values["vmpl"]
    with pytest.raises(FormatError, match="vmpl is missing"):
        encode_report(values)


def test_key_info():
    raw = bytearray(REPORT_SIZE)
    raw[0], raw[0x48] = 3, 0b11111
    report = parse_report(bytes(raw))
    assert (report.author_key_en, report.mask_chip_key, report.signing_key) == (True, True, 7)


def test_guest_policy_bits():
    assert GuestPolicy(0x30133).abi_major == 1
    assert GuestPolicy(0x30133).abi_minor == 0x33
    names = ["smt", "reserved_one", "migrate_ma", "debug", "single_socket", "cxl_allow", "mem_aes_256_xts", "rapl_dis",
             "ciphertext_hiding_dram", "page_swap_disable"]  # fmt: skip
    for number, name in enumerate(names):
        policy = GuestPolicy(1 << 16 + number)
        assert [each for each in names if getattr(policy, each)] == [name]
    assert GuestPolicy(1 << 26).reserved
    assert not GuestPolicy((1 << 26) - 1).reserved


def test_platform_info_names():
    assert platform_info_names(0x67) == ("SMT_EN", "TSME_EN", "ECC_EN", "ALIAS_CHECK_COMPLETE", "bit 6")


def test_firmware_versions_compare_by_part():
    assert FirmwareVersion(1, 9, 9) < FirmwareVersion(1, 55, 1) < FirmwareVersion(2, 0, 0)


BYTES = st.integers(0, 255)
MILAN_TCB = st.builds(Tcb, bootloader=BYTES, tee=BYTES, snp=BYTES, microcode=BYTES, fmc=st.none())
TURIN_TCB = st.builds(Tcb, bootloader=BYTES, tee=BYTES, snp=BYTES, microcode=BYTES, fmc=BYTES)


@given(MILAN_TCB, TURIN_TCB)
def test_tcb_round_trip(milan, turin):
    assert decode_tcb(encode_tcb(milan, "milan"), "milan") == milan
    assert decode_tcb(encode_tcb(turin, "turin"), "turin") == turin
    for tcb, layout in ((milan, "turin"), (turin, "milan")):
        with pytest.raises(FormatError):
            encode_tcb(tcb, layout)
    assert not milan.at_least(turin)
    assert not turin.at_least(milan)


@given(TURIN_TCB, TURIN_TCB)
def test_tcb_order_is_component_wise(one, other):
    every = all(one.as_dict()[name] >= version for name, version in other.as_dict().items())
    assert one.at_least(other) == every


def test_tcb_refuses():
    with pytest.raises(FormatError, match="7 bytes"):
        decode_tcb(bytes(7), "milan")
    with pytest.raises(FormatError, match="256"):
        encode_tcb(Tcb(256, 0, 0, 0), "milan")
    with pytest.raises(TypeError):
        _ = Tcb(1, 0, 0, 0) < Tcb(2, 0, 0, 0)


def test_known_tcbs():
    assert decode_tcb(bytes.fromhex("0a00000000001754"), "milan") == Tcb(10, 0, 0x17, 0x54)
    assert decode_tcb(bytes.fromhex("0101010400000051"), "turin") == Tcb(1, 1, 4, 0x51, fmc=1)


@pytest.mark.parametrize(
    ("family", "models", "line"),
    [
        (0x19, range(0x00, 0x10), MILAN),
        (0x19, range(0x10, 0x20), GENOA),
        (0x19, range(0xA0, 0xB0), GENOA),
        (0x1A, range(0x00, 0x12), TURIN),
        (0x1A, [*range(0x50, 0x58), *range(0x90, 0xB0), *range(0xC0, 0xC8)], VENICE),
    ],
)
def test_processors(family, models, line):
    assert {line_by_cpuid(family, model) for model in models} == {line}


def test_no_processor_has_two_lines():
    owners = [line for line in LINES for family, low, high in line.cpuid for _ in range(low, high + 1)]
    found = [line_by_cpuid(family, model) for family in range(256) for model in range(256)]
    assert sum(line is not None for line in found) == len(owners)


def test_names():
    assert line_by_product_name("Milan-B0") == line_by_product_name("Milan") == MILAN
    assert line_by_product_name("Milano") is None
    assert line_by_name("milan") is None


def test_reading_evidence_imports_nothing_heavy():
    """The sidecar sits on every cold start; it may use these modules."""
    program = (
        "import sys, attestation.report.abi, attestation.report.envelopes, attestation.report.report_data;"
        "print([name for name in ('cryptography', 'pydantic', 'aiohttp', 'yaml', 'asyncio') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert found.stdout.strip() == "[]"
