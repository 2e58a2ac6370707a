"""Evidence as it travels: fields out, the same bytes back."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestation.evidence import Code, CollectedEvidence, EvidenceError, coco_document
from attestation.report.abi import LAYOUT, encode_report, parse_report
from attestation.report.certificate_table import TableEntry
from attestation.report.coco import parse_coco_evidence
from attestation.simulator.device import Device
from tests.attestation.reports import field_values
from tests.support.vectors import Store

_TCBS = {"current_tcb", "reported_tcb", "committed_tcb", "launch_tcb"}


def test_every_real_report_comes_back_byte_for_byte(vectors: Store) -> None:
    reports = list(vectors.reports())
    assert len(reports) >= 4
    for path in reports:
        raw = path.read_bytes()
        document = coco_document(CollectedEvidence("sev-guest", raw, (TableEntry("VCEK", b"leaf"),)))
        report, certificates = parse_coco_evidence(json.loads(json.dumps(document)))
        assert report == raw, path
        assert certificates == (TableEntry("VCEK", b"leaf"),)


def test_the_agents_own_document_passes_with_its_fields_but_without_a_root(vectors: Store) -> None:
    document = json.loads(vectors.read("reports/genoa-v3-coco-aa-json-trustee/evidence.json"))
    body = json.dumps(document | {"cert_chain": [*document["cert_chain"], {"cert_type": "ARK", "data": [1]}]})
    evidence = CollectedEvidence("coco-aa", b"", (), body.encode())
    assert coco_document(evidence) == document


def fields() -> st.SearchStrategy[dict[str, int | bytes]]:
    def strategy(form: str) -> st.SearchStrategy[int | bytes]:
        if form.endswith("s"):
            size = int(form[:-1])
            return st.binary(min_size=size, max_size=size)
        return st.integers(0, 2 ** ({"B": 8, "I": 32, "Q": 64}[form]) - 1)

    plain = {name: strategy(form) for name, (_, form) in LAYOUT.items() if name not in _TCBS}
    tcbs = {name: st.binary(min_size=4, max_size=4).map(lambda b: b[:2] + bytes(4) + b[2:]) for name in _TCBS}
    return st.fixed_dictionaries(plain | tcbs | {"version": st.integers(5, 7), "cpuid_fam_id": st.just(0x19)})


@given(fields())
def test_any_report_of_a_known_layout_comes_back(values: dict[str, int | bytes]) -> None:
    values["cpuid_mod_id"] = 0x11
    raw = encode_report(values)
    report, _ = parse_coco_evidence(json.loads(json.dumps(coco_document(CollectedEvidence("simulated", raw)))))
    assert report == raw


@pytest.mark.parametrize("offset", [0x04C, 0x18B, 0x1EB, 0x208, 0x330, 0x49F])
def test_reserved_bytes_that_do_not_fit_are_an_error_here_not_a_broken_signature_there(
    device: Device, offset: int
) -> None:
    raw = bytearray(device.report(bytes(64)))
    raw[offset] = 1
    with pytest.raises(EvidenceError) as caught:
        coco_document(CollectedEvidence("sev-guest", bytes(raw)))
    assert caught.value.code is Code.MALFORMED


def test_version_2_of_a_turin_machine_is_told_by_its_chip_id(device: Device) -> None:
    report = parse_report(device.report(bytes(64)))
    old = report._replace(version=2, chip_id=bytes(range(1, 9)) + bytes(56), cpuid_fam_id=0, cpuid_mod_id=0)
    turin = bytes([1, 2, 3, 4, 0, 0, 0, 5])
    values = field_values(old) | dict.fromkeys(_TCBS, turin) | {"launch_mit_vector": 0, "current_mit_vector": 0}
    document = coco_document(CollectedEvidence("sev-guest", encode_report(values)))
    assert document["attestation_report"]["reported_tcb"]["fmc"] == 1
