"""A login stands while the records in force would still grant it: no addition takes it back, every tightening does."""

from __future__ import annotations

import json
from typing import Any

import pytest

from attestation.appraisal.reappraise import AttestedReport
from attestation.appraisal.result import Assurance
from attestation.pki.roots import TrustAnchors
from attestation.report.abi import SIGNED_SIZE
from attestation.simulator.device import Device
from attestation.simulator.hierarchy import TCB, Hierarchy
from attestation.verifier.cluster.pod_token import PodIdentity
from attestation.verifier.policies.load import PolicyReader
from attestation.verifier.policies.model import PolicySet, Workload
from attestation.verifier.reasons import Reason, RefusedError
from attestation.verifier.session.basis import Basis, InForce
from tests.attestation.verifier.process import GUEST, HOST_DATA, policy

OTHER = bytes(reversed(HOST_DATA)).hex()
SECOND = {**GUEST, "measurements": ["1" * 96]}
ANCHORS = TrustAnchors({"Simulated": "00"})
POD = PodIdentity("prod", "shop", "default", "payments-1", "uid-1", "payments", node="worker-1", images=("a",))
Records = list[dict[str, Any]]


def raised(component: str, by: int) -> dict[str, int]:
    return TCB.as_dict() | {component: TCB.as_dict()[component] + by}


def loaded(records: Records, guests: dict[str, Any]) -> PolicySet:
    entries = {
        "/".join(record["workload"][key] for key in ("cluster", "namespace", "service")): record for record in records
    }
    found = PolicyReader({"prod": True}).document({"policies": entries, "guests": guests}, "test")
    assert not found.problems, found.problems
    return found.value


@pytest.fixture(scope="module")
def attested(hierarchy: Hierarchy) -> AttestedReport:
    report = Device(hierarchy, host_data=HOST_DATA).report(bytes(64))
    return AttestedReport(report[:SIGNED_SIZE], "Simulated", None, (1, 2), ())


def basis_of(attested: AttestedReport, record: dict[str, Any]) -> Basis:
    return Basis(Workload(**record["workload"]), Assurance(record["assurance"]), "simulated", attested, POD)


VM = policy(assurance="vm", hostData=[])
CHIP = "CHIP"  # stands for the report's own CHIP_ID
# What was in force at the attestation, and an edit of it: the record or records, and the guests.
Edit = tuple[dict[str, Any], Records, dict[str, Any]]


def record_edit(*records: dict[str, Any], before: dict[str, Any] | None = None) -> Edit:
    return before or policy(), list(records), {"simulated": GUEST, "second": SECOND}


def guest_edit(**changes: Any) -> Edit:
    return policy(), [policy()], {"simulated": {**GUEST, **changes}}


BENIGN: dict[str, Edit] = {
    "nothing": record_edit(policy()),
    "a HOST_DATA before the old one": record_edit(policy(hostData=[OTHER, HOST_DATA.hex()])),
    "a guest after": record_edit(policy(guests=["simulated", "second"])),
    "a guest before": record_edit(policy(guests=["second", "simulated"])),
    "another Service's record": record_edit(policy(), policy("other", hostData=[OTHER])),
    "a foreign record that lists our digest": record_edit(policy(), policy("evil", workload={"namespace": "evil"})),
    "another role": record_edit(policy(vault={"mount": "jwt-other", "role": "narrow", "namespace": "team"})),
    "an exclusive account": record_edit(policy(exclusiveServiceAccount=True)),
    "the guest's HOST_DATA listed with assurance vm": record_edit(
        policy(assurance="vm", hostData=[HOST_DATA.hex()]), before=VM
    ),
    "no list with assurance vm": record_edit(VM, before=policy(assurance="vm", hostData=[HOST_DATA.hex()])),
    "a measurement before the old one": guest_edit(measurements=["1" * 96, *GUEST["measurements"]]),
    "a lower floor": guest_edit(minTcb=raised("snp", -1)),
    "floors of the other TCBs": guest_edit(minCommittedTcb=TCB.as_dict(), minLaunchTcb=TCB.as_dict()),
    "chips, ours among them": guest_edit(chipIds=["1" * 128, CHIP]),
    "a signed key it does not use": guest_edit(signingKeys=["VCEK", "VLEK"], cspIds=["CN=test"]),
    "a privilege level": guest_edit(vmpl=[0, 1]),
    "bits of POLICY that are allowed": guest_edit(policy={"migrateMa": True, "cxlAllow": True}),
    "POLICY as it is": guest_edit(policy="0x30000"),
    "its HOST_DATA": guest_edit(hostData=[HOST_DATA.hex()]),
    "its version": guest_edit(versions={"min": 3, "max": 5}),
    "a soft list rule": guest_edit(crl="soft"),
    "bits of PLATFORM_INFO that are set": guest_edit(platformInfo={"require": ["SMT_EN"]}),
    "its firmware": guest_edit(minFirmware="1.55.49"),
}
TIGHTER: dict[str, Edit] = {
    "no record": record_edit(),
    "another Service's record alone": record_edit(policy("other")),
    "another account": record_edit(policy(account="other")),
    "HOST_DATA removed": record_edit(policy(hostData=[OTHER])),
    "assurance vm": record_edit(VM),
    "assurance workload": record_edit(policy(), before=VM),
    "another HOST_DATA with assurance vm": record_edit(policy(assurance="vm", hostData=[OTHER]), before=VM),
    "HOST_DATA given to another Service of the account": record_edit(
        policy(hostData=[OTHER]), policy("other", hostData=[HOST_DATA.hex()])
    ),
    "the guest removed from the record": record_edit(policy(guests=["second"])),
    "the measurement removed": guest_edit(measurements=["1" * 96]),
    **{f"a higher floor of {each}": guest_edit(minTcb=raised(each, 1)) for each in TCB.as_dict()},
    "a higher floor of COMMITTED_TCB": guest_edit(minCommittedTcb=raised("microcode", 1)),
    "a higher floor of LAUNCH_TCB": guest_edit(minLaunchTcb=raised("tee", 1)),
    "other chips": guest_edit(chipIds=["1" * 128]),
    "another key": guest_edit(signingKeys=["VLEK"], cspIds=["CN=test"]),
    "another privilege level": guest_edit(vmpl=1),
    "another POLICY": guest_edit(policy="0x20000"),
    "a bit of POLICY forbidden": guest_edit(policy={"singleSocket": True}),
    "an ABI": guest_edit(policy={"minAbi": "1.0"}),
    "another HOST_DATA": guest_edit(hostData=[OTHER]),
    "a newer version": guest_edit(versions={"min": 4, "max": 4}),
    "an ID key": guest_edit(idKeys=["1" * 96]),
    "an author key": guest_edit(authorKeys=["0" * 96]),
    "a family": guest_edit(familyId="1" * 32),
    "an image": guest_edit(imageId="1" * 32),
    "an SVN": guest_edit(minGuestSvn=1),
    "a bit of PLATFORM_INFO required": guest_edit(platformInfo={"require": ["TSME_EN"]}),
    "a bit of PLATFORM_INFO forbidden": guest_edit(platformInfo={"forbid": ["SMT_EN"]}),
    "mitigations at the launch": guest_edit(mitigations={"launch": 0xF0}),
    "mitigations now": guest_edit(mitigations={"current": 0xF0}),
    "newer firmware": guest_edit(minFirmware="1.56.0"),
    "another product": guest_edit(product="Milan"),
}


def in_force(edit: Edit, attested: AttestedReport, chips: dict[str, frozenset[bytes]] | None = None) -> InForce:
    _, records, guests = edit
    text = json.dumps(guests).replace(CHIP, attested.report.chip_id.hex())
    policies = loaded(records, json.loads(text))
    return InForce(lambda: policies, {} if chips is None else {"prod": lambda: chips}, ANCHORS)


@pytest.mark.parametrize("name", BENIGN)
def test_an_addition_takes_nothing_back(attested: AttestedReport, name: str) -> None:
    edit = BENIGN[name]
    found = in_force(edit, attested).policy_for(basis_of(attested, edit[0]))
    assert found.record.workload.subject == "prod/shop/payments"


@pytest.mark.parametrize("name", TIGHTER)
def test_each_tightening_takes_it_back(attested: AttestedReport, name: str) -> None:
    edit = TIGHTER[name]
    basis = basis_of(attested, edit[0])
    before = InForce(lambda: loaded([edit[0]], {"simulated": GUEST, "second": SECOND}), {}, ANCHORS)
    granted_by = before.policy_for(basis).digest
    with pytest.raises(RefusedError) as caught:
        in_force(edit, attested).policy_for(basis, granted_by)
    assert caught.value.reason is Reason.POLICY_CHANGED
    assert caught.value.detail.startswith("since the attestation: ")


def test_a_chip_that_is_taken_off_its_node_takes_it_back(attested: AttestedReport) -> None:
    edit, chip = BENIGN["nothing"], attested.report.chip_id
    basis = basis_of(attested, edit[0])
    assert in_force(edit, attested, {"worker-1": frozenset({chip, b"\1" * 64})}).policy_for(basis)
    for chips in ({}, {"worker-1": frozenset[bytes]()}, {"worker-2": frozenset({chip})}):
        granted_by = in_force(edit, attested).policy_for(basis).digest
        with pytest.raises(RefusedError, match=r"policy-changed: since the attestation: node-chip"):
            in_force(edit, attested, chips).policy_for(basis, granted_by)


def test_it_survives_storage_and_refuses_what_it_has_not_written(attested: AttestedReport) -> None:
    basis = basis_of(attested, policy())
    stored = json.loads(json.dumps(basis.as_dict()))
    assert Basis.from_dict(stored) == basis
    spoilt: list[Any] = [{**stored, key: value} for key in stored for value in (None, 1, {}, [], "x") if key != "guest"]
    spoilt += [{key: stored[key] for key in stored if key != name} for name in stored]
    for each in spoilt:
        with pytest.raises(ValueError):
            Basis.from_dict(each)
