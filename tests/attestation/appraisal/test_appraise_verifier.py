"""A guest believes no verifier but the one that it was told to trust, on the connection that it uses itself."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from joserfc.jwk import ECKey

from attestation.appraisal.appraise_verifier import VerifierResult, appraise_verifier
from attestation.pki.crl import parse_crl
from attestation.report.abi import parse_report
from attestation.report.certificate_table import TableEntry
from attestation.report.coco import write_coco_evidence
from attestation.report.products import line_by_name
from attestation.report.tcb import encode_tcb
from attestation.simulator.hierarchy import TCB, Hierarchy
from kbs.attested import DIGEST_SIZE
from kbs.attested_guest import read_attested_answer
from kbs.messages import WireError
from kbs.reference_values import REQUIRE_CRL, TcbFloor
from kbs.verifier_attest import VerifierAttest
from tests.attestation.conftest import Platform, Vectors
from tests.attestation.kms import CONFIGURATION, Kms, kms_guest

NONCE, OTHER = b"n" * 32, b"o" * 32
LONG_AGO = datetime(1999, 1, 1, tzinfo=UTC)
_LOW = encode_tcb(TCB._replace(snp=TCB.snp - 1), "milan")


@pytest.fixture(scope="module")
def kms(hierarchy: Hierarchy) -> Kms:
    return Kms(hierarchy)


def appraised(kms: Kms, attest: VerifierAttest | None = None, **members: Any) -> VerifierResult:
    """What a guest makes of this verifier's answer to its nonce. The host has set its clock to last century."""
    return appraise_verifier(kms.answer(NONCE, **members), NONCE, kms.spki, attest or kms.by_signer, LONG_AGO)


def failed(result: VerifierResult) -> list[str]:
    assert not result.accepted
    return [check.id for check in result.failed]


# --- honest ----------------------------------------------------------------------------------------------------------


def test_the_kms_is_believed_by_its_signed_values_whatever_the_guests_clock_says(kms: Kms) -> None:
    result = appraised(kms)
    assert result.accepted, result.failed
    assert (result.guest, result.serial, result.simulated, result.configuration) == ("kms", 7, True, CONFIGURATION)
    assert not any(check.id.startswith("validity/") for check in result.checks)


def test_the_kms_is_believed_by_the_values_themselves(kms: Kms) -> None:
    assert appraised(kms, kms.by_values()).accepted
    assert appraised(kms, kms.by_values(frozenset({CONFIGURATION}))).accepted


@pytest.mark.parametrize("count", [1, 2, 6, 1023])
def test_many_guests_share_one_report(kms: Kms, count: int) -> None:
    crowd = replace(kms, neighbours=tuple(number.to_bytes(32) for number in range(count)))
    assert appraised(crowd).accepted


def test_one_of_several_signed_guests_is_enough(kms: Kms) -> None:
    """During an update two images of the KMS run: both are signed."""
    old = kms_guest()._replace(
        reference=kms_guest().reference._replace(name="a-old", measurements=frozenset({b"x" * 48}))
    )
    stricter = kms_guest()._replace(reference=kms_guest().reference._replace(name="b-strict", vmpl=frozenset({2})))
    result = appraised(replace(kms, guests=(old, stricter, kms_guest())))
    assert result.accepted
    assert result.guest == "kms"


def test_a_guest_has_no_revocation_list_and_an_operator_demands_one_where_it_brings_some(kms: Kms) -> None:
    now = datetime.now(UTC)
    strict = replace(kms, guests=(kms_guest(revocation=REQUIRE_CRL),))
    assert appraised(strict).accepted
    answer = strict.answer(NONCE)
    lists = (parse_crl(kms.hierarchy.crl_path.read_bytes()),)
    judged = appraise_verifier(answer, NONCE, kms.spki, kms.by_signer, now, crls=lists, trusts_clock=True)
    assert judged.accepted, judged.failed
    assert judged.report is not None
    assert judged.report.revocation == "checked"
    late = appraise_verifier(answer, NONCE, kms.spki, kms.by_signer, LONG_AGO, crls=lists, trusts_clock=True)
    assert {"validity/leaf", "crl/fresh"} <= set(failed(late))


# --- the statement ---------------------------------------------------------------------------------------------------


def test_the_path_of_another_nonce_is_refused(kms: Kms) -> None:
    """A man in the middle sends its own nonce along and hands the guest the path of that one."""
    answer = replace(kms, neighbours=(OTHER,)).answer(NONCE)
    assert failed(appraise_verifier(answer, OTHER, kms.spki, kms.by_signer, LONG_AGO)) == ["guest/report-data"]


def test_an_answer_to_an_earlier_nonce_is_refused(kms: Kms) -> None:
    assert failed(appraise_verifier(kms.answer(OTHER), NONCE, kms.spki, kms.by_signer, LONG_AGO)) == [
        "guest/report-data"
    ]


def test_the_report_of_replica_a_on_the_key_of_replica_b_is_refused(kms: Kms) -> None:
    assert failed(appraise_verifier(kms.answer(NONCE), NONCE, b"b" * 32, kms.by_signer, LONG_AGO)) == [
        "guest/report-data"
    ]


@pytest.mark.parametrize("member", ["nonce", "spki", "policies", "configuration"])
def test_a_report_that_binds_another_statement_is_refused(kms: Kms, member: str) -> None:
    assert failed(appraised(kms, **{member: b"z" * DIGEST_SIZE})) == ["guest/report-data"]


def test_a_swapped_configuration_is_refused(kms: Kms) -> None:
    """The host's ConfigMap names its own Vault, or a simulated root: the VM truly reports that it runs with it."""
    swapped = replace(kms, configuration=b"w" * 32)
    assert failed(appraised(swapped)) == ["references/configuration"]
    assert failed(appraised(swapped, kms.by_values(frozenset({CONFIGURATION})))) == ["references/configuration"]


def test_a_claimed_configuration_that_is_not_the_running_one_is_refused(kms: Kms) -> None:
    answer = replace(kms, configuration=b"w" * 32).answer(NONCE)._replace(configuration=CONFIGURATION)
    assert failed(appraise_verifier(answer, NONCE, kms.spki, kms.by_signer, LONG_AGO)) == ["guest/report-data"]


# --- the signed values -----------------------------------------------------------------------------------------------


def test_values_by_another_key_are_refused(kms: Kms) -> None:
    result = appraised(replace(kms, signer=ECKey.generate_key("P-256")), kms.by_signer)
    assert failed(result) == ["references/signature"]
    assert result.report is None


def test_values_that_were_replaced_since_are_refused(kms: Kms) -> None:
    assert failed(appraised(replace(kms, serial=6))) == ["references/serial"]
    assert appraised(replace(kms, serial=8)).accepted


def test_a_verifier_without_signed_values_is_refused(kms: Kms) -> None:
    answer = kms.answer(NONCE)._replace(references="")
    assert failed(appraise_verifier(answer, NONCE, kms.spki, kms.by_signer, LONG_AGO)) == ["references/signature"]


# --- the guest -------------------------------------------------------------------------------------------------------

_GUESTS: dict[str, tuple[dict[str, Any], dict[str, int | bytes], str]] = {
    "a workload pod of the same image": ({"host_data": b"w" * 32}, {}, "guest/host-data"),
    "a pod of the same image without initdata": ({"host_data": bytes(32)}, {}, "guest/host-data"),
    "another image": ({}, {"measurement": b"m" * 48}, "guest/measurement"),
    "a guest at VMPL 1": ({}, {"vmpl": 1}, "guest/vmpl"),
    "a report that the host requested": ({}, {"vmpl": 0xFFFFFFFF}, "report/requester"),
    "a guest that the host may debug": ({}, {"policy": 0x30000 | 1 << 19}, "policy/debug"),
    "firmware below the floor at launch": ({}, {"launch_tcb": _LOW}, "tcb/launch-floor"),
    "firmware that can be rolled back below the floor": ({}, {"committed_tcb": _LOW}, "tcb/committed-floor"),
    "firmware below the floor": ({}, {"reported_tcb": _LOW}, "tcb/reported-floor"),
    "another chip's report": ({}, {"chip_id": b"c" * 64}, "leaf/chip-id"),
}


@pytest.mark.parametrize("form", ["by_signer", "by_values"])
@pytest.mark.parametrize("attack", _GUESTS)
def test_another_guest_than_the_kms_is_refused(kms: Kms, attack: str, form: str) -> None:
    changes, fields, check = _GUESTS[attack]
    attest = kms.by_signer if form == "by_signer" else kms.by_values()
    assert check in failed(appraised(replace(kms, fields=fields, **changes), attest))


def test_a_genuine_machine_of_a_chip_that_is_not_listed_is_refused(kms: Kms) -> None:
    """Somebody with an SNP machine of their own runs the KMS's very image and initdata there."""
    attest = kms.by_signer._replace(chip_ids=frozenset({b"c" * 64}))
    assert failed(appraised(kms, attest)) == ["guest/chip-id"]
    signed = replace(kms, guests=(kms_guest(chip_ids=frozenset({b"c" * 64})),))
    assert failed(appraised(signed)) == ["guest/chip-id"]
    own = kms.hierarchy.vcek.vek.hwid or b""
    assert appraised(kms, kms.by_signer._replace(chip_ids=frozenset({own}))).accepted
    assert failed(appraised(signed, kms.by_signer._replace(chip_ids=frozenset({own})))) == ["guest/chip-id"]


def test_a_floor_that_rose_refuses_older_firmware(kms: Kms) -> None:
    high = TcbFloor(TCB.bootloader, TCB.tee, TCB.snp + 1, TCB.microcode)
    result = appraised(kms, kms.by_values(min_tcb=high, min_committed_tcb=high, min_launch_tcb=high))
    assert failed(result) == ["tcb/reported-floor", "tcb/committed-floor", "tcb/launch-floor"]


# --- the hardware ----------------------------------------------------------------------------------------------------


def test_simulated_hardware_is_refused_unless_the_plan_names_its_root(kms: Kms) -> None:
    assert "product/line" in failed(appraised(kms, kms.by_signer._replace(simulated_root="")))
    line = line_by_name("Simulated")
    assert line is not None
    other = ssl.DER_cert_to_PEM_cert(Platform(line).ark.der)
    assert {"chain/intermediate", "signature/report"} & set(
        failed(appraised(kms, kms.by_signer._replace(simulated_root=other)))
    )


def test_amds_root_counts_by_its_pinned_digest_and_not_by_its_name(kms: Kms) -> None:
    """The verifier brings the root itself. One that an attacker made has all of AMD's names."""
    milan = line_by_name("Milan")
    assert milan is not None
    platform = Platform(milan)
    leaf, key = platform.leaf()
    ask = platform.ask()
    guest = kms_guest(product="Milan", measurements=frozenset({b"m" * 48}), host_data=frozenset({b"h" * 32}))
    floor = TcbFloor(1, 0, 1, 1)
    guest = guest._replace(
        reference=guest.reference._replace(min_tcb=floor, min_committed_tcb=floor, min_launch_tcb=floor),
    )
    genuine = replace(kms, guests=(guest,)).answer(NONCE)
    digest = genuine.digest(NONCE, kms.spki)
    report = parse_report(platform.report(key, report_data=digest.ljust(64, b"\0")))
    chain = [TableEntry("VCEK", leaf.der), TableEntry("ASK", ask.der), TableEntry("ARK", platform.ark.der)]
    answer = genuine._replace(evidence=write_coco_evidence(report, chain))
    result = appraise_verifier(answer, NONCE, kms.spki, kms.by_signer, LONG_AGO)
    assert failed(result) == ["chain/anchor"]


def test_amds_own_root_counts_where_the_answer_brings_it(kms: Kms, vectors: Vectors) -> None:
    """A real report with AMD's real chain: all that is wrong with it is what it is a report of."""
    name = vectors.first("milan-v3-routex", "milan-v2-virtee")
    report, leaf = parse_report(vectors.report(name)), vectors.leaf(name)
    chain = [TableEntry("VCEK", leaf.der)]
    for certificate in vectors.certificates:
        if certificate.subject_name in ("SEV-Milan", "ARK-Milan"):
            chain.append(TableEntry(certificate.subject_name[:3].replace("SEV", "ASK"), certificate.der))
    guest = kms_guest(
        product="Milan", measurements=frozenset({report.measurement}), host_data=frozenset({b"h" * 32}), min_version=2
    )
    answer = replace(kms, guests=(guest,)).answer(NONCE)._replace(evidence=write_coco_evidence(report, chain))
    result = appraise_verifier(answer, NONCE, kms.spki, kms.by_signer, LONG_AGO)
    assert not result.simulated
    held = {check.id for check in result.checks if check.ok}
    assert {"chain/anchor", "chain/root", "chain/intermediate", "chain/leaf", "signature/report"} <= held
    assert {"guest/host-data", "guest/report-data"} <= set(failed(result))
    without = answer._replace(evidence=write_coco_evidence(report, [each for each in chain if each.kind != "ARK"]))
    assert "certificates/root" in failed(appraise_verifier(without, NONCE, kms.spki, kms.by_signer, LONG_AGO))


# --- every bit -------------------------------------------------------------------------------------------------------


def _leaves(value: Any, at: tuple[int | str, ...] = ()) -> Iterator[tuple[int | str, ...]]:
    """Where each member of an answer ends; of a long list the ends and a place in between."""
    if isinstance(value, dict):
        for name, member in value.items():
            yield from _leaves(member, (*at, name))
    elif isinstance(value, list) and value:
        for index in sorted({0, len(value) // 2, len(value) - 1}):
            yield from _leaves(value[index], (*at, index))
    elif value is not None:
        yield at


def _bent(value: Any) -> Any:
    if isinstance(value, int):
        return value ^ 1
    middle = len(value) // 2
    return value[:middle] + ("B" if value[middle] == "A" else "A") + value[middle + 1 :]


def test_no_field_of_the_answer_can_be_changed(kms: Kms) -> None:
    """Each one by itself, as someone between guest and verifier would who can decrypt the connection."""
    body = replace(kms, neighbours=(OTHER,)).body(NONCE)
    document = json.loads(body)
    chain = document["evidence"]["cert_chain"]
    # The simulated root stands in the plan; AMD's counts by its digest, see above.
    assert chain.pop()["cert_type"] == "ARK"
    places = list(_leaves(document))
    assert len(places) > 60

    def change(place: tuple[int | str, ...], how: Callable[[Any], Any]) -> bytes:
        changed = json.loads(json.dumps(document))
        parent: Any = changed
        for part in place[:-1]:
            parent = parent[part]
        parent[place[-1]] = how(parent[place[-1]])
        return json.dumps(changed).encode()

    untouched = read_attested_answer(json.dumps(document).encode())
    assert appraise_verifier(untouched, NONCE, kms.spki, kms.by_signer, LONG_AGO).accepted
    for place in places:
        try:
            answer = read_attested_answer(change(place, _bent))
        except WireError:
            continue
        assert not appraise_verifier(answer, NONCE, kms.spki, kms.by_signer, LONG_AGO).accepted, place
