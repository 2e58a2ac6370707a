"""Hostile input into every parser: only the library's own error comes out, in bounded time."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attestation.appraisal.appraise import Expectation, appraise
from attestation.errors import AttestationError
from attestation.pki.certificates import parse_certificate, parse_certificates
from attestation.pki.crl import parse_crl
from attestation.pki.endorsements import Endorsements, from_table
from attestation.pki.roots import TrustAnchors
from attestation.report.abi import parse_report
from attestation.report.certificate_table import TableEntry, encode_certificate_table, parse_certificate_table
from attestation.report.coco import parse_coco_evidence, parse_coco_json
from attestation.report.envelopes import (
    Envelope,
    Evidence,
    from_azure_hcl,
    from_configfs,
    from_ioctl,
    from_raw,
    read_evidence,
)
from attestation.report.tcb import decode_tcb
from server.guest_entries import GuestFile
from server.yaml.strict import ConfigurationError, validate
from tests.attestation.reports import guest_reference

BOUNDED = settings(
    max_examples=150,
    deadline=None,  # machines that run tests stall
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
REPORT = bytes([3]) + bytes(1183)
NOW = datetime(2026, 6, 1, tzinfo=UTC)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner, max_size=5),
    max_leaves=12,
)
PARSERS = {
    "report": parse_report,
    "table": parse_certificate_table,
    "certificate": parse_certificate,
    "certificates": parse_certificates,
    "crl": parse_crl,
    "coco": parse_coco_json,
    "evidence": read_evidence,
    "ioctl": from_ioctl,
    "configfs": lambda raw: from_configfs(REPORT, raw),
    "hcl": from_azure_hcl,
    "tcb": lambda raw: decode_tcb(raw, "turin"),
}


def survives(parse, *arguments):
    try:
        return parse(*arguments)
    except (AttestationError, ConfigurationError) as error:
        message = str(error)
    assert len(message) < 4000
    return None


def parse_guests(document):
    return validate(document, GuestFile, name="guests")


def mutated(raw, draw):
    """A real input with a few bytes changed, cut or grown: gets deeper than noise does."""
    changed = bytearray(raw)
    for position, value in draw:
        changed[position % len(changed)] = value
    return bytes(changed)


CHANGES = st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), max_size=6)


@pytest.mark.parametrize("name", PARSERS)
@BOUNDED
@given(raw=st.binary(max_size=4096))
def test_noise(name, raw):
    survives(PARSERS[name], raw)


@pytest.fixture(scope="module")
def samples(milan):
    leaf, key = milan.leaf()
    report = milan.report(key)
    return {
        "report": report,
        "table": encode_certificate_table([TableEntry("VCEK", leaf.der), TableEntry("ASK", milan.ask().der)]),
        "certificate": leaf.der,
        "certificates": leaf.der,
        "crl": milan.crl([1, 2]).der,
        "coco": None,
        "evidence": report,
        "ioctl": bytes(4) + (1184).to_bytes(4, "little") + bytes(24) + report + bytes(4000 - 32 - 1184),
        "configfs": encode_certificate_table([TableEntry("VCEK", leaf.der)]),
        "hcl": b"HCLA" + b"".join(n.to_bytes(4, "little") for n in (2, 1184, 2, 0, 0, 0, 0)) + report
        + b"".join(n.to_bytes(4, "little") for n in (22, 1, 2, 1, 2)) + b"{}",
        "tcb": bytes(8),
    }  # fmt: skip


@pytest.mark.parametrize("name", [name for name in PARSERS if name != "coco"])
@BOUNDED
@given(changes=CHANGES, cut=st.integers(0, 64), grown=st.binary(max_size=64))
def test_almost_right(samples, name, changes, cut, grown):
    raw = mutated(samples[name], changes)
    survives(PARSERS[name], raw[: len(raw) - cut] + grown)


@pytest.mark.parametrize(
    "block", [b"-----BEGIN CERTIFICATE-----", b"-----BEGIN X509 CRL-----", b"0\x80", b"0\x82\xff\xff"]
)
@pytest.mark.parametrize("name", ["certificate", "certificates", "crl", "table"])
def test_repeated_beginnings_cost_one_pass(name, block):
    started = time.process_time()
    survives(PARSERS[name], block * (250_000 // len(block)))
    survives(PARSERS[name], block * (8000 // len(block)))
    assert time.process_time() - started < 0.5


@BOUNDED
@given(document=JSON)
def test_json(document):
    survives(parse_coco_evidence, document)
    survives(parse_coco_evidence, {"attestation_report": document, "cert_chain": document})
    survives(parse_guests, document)
    survives(guest_reference, document)


KEYS = [
    "product", "measurements", "minTcb", "minCommittedTcb", "minLaunchTcb", "policy", "vmpl", "hostData", "idKeys",
    "authorKeys", "familyId", "imageId", "minGuestSvn", "chipIds", "maskedChipId", "signingKeys", "platformInfo",
    "mitigations", "minFirmware", "provisionalFirmware", "versions", "crl",
]  # fmt: skip
GOOD = {
    "product": "Milan",
    "measurements": ["00" * 48],
    "minTcb": {"bootloader": 1, "tee": 0, "snp": 1, "microcode": 1},
}


@BOUNDED
@given(key=st.sampled_from(KEYS), value=JSON)
def test_policy_values(key, value):
    survives(guest_reference, GOOD | {key: value})
    survives(guest_reference, GOOD | {key: [value]})
    survives(guest_reference, GOOD | {key: {"missing": value, "require": value, "min": value, "smt": value}})


@BOUNDED
@given(position=st.integers(0, 1 << 12), value=JSON)
def test_coco_values(vectors, position, value):
    if vectors.first("genoa-v3-coco-aa-json-trustee", "genoa-v2-vmpl1-sevattesttool").startswith("genoa-v3"):
        document = json.loads(vectors.read("reports/genoa-v3-coco-aa-json-trustee/evidence.json"))
    else:
        written = json.loads(vectors.read("reports/genoa-v2-vmpl1-sevattesttool/report.json"))
        document = {"attestation_report": written}
    report = document["attestation_report"]
    report[sorted(report)[position % len(report)]] = value
    survives(parse_coco_evidence, document)


@BOUNDED
@given(changes=CHANGES, leaf_changes=CHANGES, ask_changes=CHANGES, crl_changes=CHANGES)
def test_appraisal_of_anything_that_parses(milan, samples, changes, leaf_changes, ask_changes, crl_changes):
    """Everything that parses gets a result, and nothing that differs from the genuine is accepted."""
    report = mutated(samples["report"], changes)
    leaf = survives(parse_certificate, mutated(samples["certificate"], leaf_changes))
    ask = survives(parse_certificate, mutated(milan.ask().der, ask_changes))
    crl = survives(parse_crl, mutated(samples["crl"], crl_changes))
    endorsements = Endorsements(leaf, () if ask is None else (ask,), () if crl is None else (crl,))
    evidence = survives(from_raw, report)
    if evidence is not None and appraise(evidence, endorsements, milan.anchors, NOW).accepted:
        assert report == samples["report"]
        assert leaf.der == samples["certificate"]
        assert crl.der == samples["crl"]


@BOUNDED
@given(report=st.binary(min_size=1184, max_size=1184), entries=st.lists(st.binary(max_size=64), max_size=3))
def test_noise_is_never_accepted(report, entries):
    report = b"\3\0\0\0" + report[4:]
    table = [TableEntry(kind, data) for kind, data in zip(("VCEK", "ASK", "VLEK"), entries, strict=False)]
    evidence = Evidence(parse_report(report), Envelope.COCO, tuple(table))
    result = appraise(evidence, from_table(table), TrustAnchors(), NOW, Expectation())
    assert not result.accepted
