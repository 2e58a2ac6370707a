"""What a login says comes from the policy in force at that moment: a benign edit passes, a removal does not."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from attestation.verifier.cluster.pod_token import PodIdentity
from attestation.verifier.policies.load import load_policies
from attestation.verifier.policies.model import PolicySet
from attestation.verifier.reasons import Reason, RefusedError
from attestation.verifier.session.bearer import Grant
from attestation.verifier.session.entitlement import entitlement
from tests.attestation.verifier.grants import GRANT
from tests.attestation.verifier.process import GUEST, HOST_DATA, policy

POD = PodIdentity("prod", "shop", "default", "payments-1", "uid-1", "payments")
READ_BACK = True
OTHER = bytes(reversed(HOST_DATA)).hex()


def loaded(folder: Path, *policies: dict[str, Any], guests: dict[str, Any] | None = None) -> PolicySet:
    shutil.rmtree(folder / "policies", ignore_errors=True)
    (folder / "guests").mkdir(exist_ok=True)
    records = folder / "policies" / "prod" / "shop"
    records.mkdir(parents=True)
    for record in policies:
        (records / f"{record['workload']['service']}.yaml").write_text(yaml.safe_dump(record))
    (folder / "guests" / "guests.yaml").write_text(yaml.safe_dump(guests or {"simulated": GUEST}))
    return load_policies(folder / "policies", folder / "guests", {"prod": READ_BACK}).value


def granted(policies: PolicySet) -> Grant:
    found = policies.find(HOST_DATA, POD)
    fields = {name: getattr(GRANT, name) for name in ("correlation_id", "nonce", "tee_pubkey", "claims", "simulated")}
    record = found.record
    return Grant(
        workload=record.workload,
        assurance=record.assurance,
        reference=found.guests[0],
        host_data=HOST_DATA,
        pod=POD,
        **fields,
    )


@pytest.mark.parametrize(
    "record",
    [
        policy(),
        policy(hostData=[HOST_DATA.hex(), OTHER]),
        policy(vault={"mount": "jwt-other", "role": "narrow", "namespace": "team"}),
        policy(guests=["simulated", "another"]),
    ],
)
def test_a_benign_edit_passes_and_counts(tmp_path: Path, record: dict[str, Any]) -> None:
    grant = granted(loaded(tmp_path, policy()))
    edited = loaded(tmp_path, record, guests={"simulated": GUEST, "another": {**GUEST, "vmpl": 1}})
    login = entitlement(grant, edited)
    assert login.subject == "prod/shop/payments"
    assert login.vault.model_dump() == {"namespace": "", **record["vault"]}
    assert {name: login.claims[name] for name in ("service", "assurance", "guest", "simulated", "k8s_pod_uid")} == {
        "service": "payments",
        "assurance": "workload",
        "guest": "simulated",
        "simulated": "true",
        "k8s_pod_uid": "uid-1",
    }


@pytest.mark.parametrize(
    ("records", "guests"),
    [
        ([], {"simulated": GUEST}),
        ([policy(hostData=[OTHER])], {"simulated": GUEST}),
        ([policy("neighbour")], {"simulated": GUEST}),
        ([policy(account="another")], {"simulated": GUEST}),
        ([policy(assurance="vm", hostData=[])], {"simulated": GUEST}),
        ([policy()], {"simulated": {**GUEST, "minGuestSvn": 1}}),
        ([policy()], {"simulated": {**GUEST, "measurements": ["1" * 96]}}),
        ([policy(guests=["another"])], {"simulated": GUEST, "another": GUEST}),
    ],
)
def test_a_removal_does_not_pass(tmp_path: Path, records: list[dict[str, Any]], guests: dict[str, Any]) -> None:
    grant = granted(loaded(tmp_path, policy()))
    with pytest.raises(RefusedError) as caught:
        entitlement(grant, loaded(tmp_path, *records, guests=guests))
    assert caught.value.reason is Reason.POLICY_CHANGED


def test_a_listed_host_data_counts_with_assurance_vm_too(tmp_path: Path) -> None:
    vm = policy(assurance="vm", hostData=[HOST_DATA.hex()])
    grant = granted(loaded(tmp_path, vm))
    assert entitlement(grant, loaded(tmp_path, vm)).claims["assurance"] == "vm"
    with pytest.raises(RefusedError, match="policy-changed"):
        entitlement(grant, loaded(tmp_path, policy(assurance="vm", hostData=[OTHER])))
