"""Appraisal policies: found by HOST_DATA or by the token, and refused at load when two could be meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from attestation.verifier.cluster.pod_token import PodIdentity
from attestation.verifier.policies.load import load_policies
from attestation.verifier.policies.model import PolicySet
from attestation.verifier.reasons import Reason, RefusedError
from server.yaml.strict import ConfigurationError
from tests.attestation.verifier.process import GUEST, HOST_DATA, policy

OTHER = bytes(range(1, 33))
CLUSTERS = {"prod": False, "stage": True}


def vm(service: str, **changes: Any) -> dict[str, Any]:
    return policy(service, assurance="vm", hostData=[], **changes)


def load(folder: Path, *records: dict[str, Any], guests: Any = None) -> PolicySet:
    for name in ("policies", "guests"):
        (folder / name).mkdir(exist_ok=True)
    for number, record in enumerate(records):
        (folder / "policies" / f"{number}.yaml").write_text(yaml.safe_dump(record))
    content = {"simulated": GUEST} if guests is None else guests
    (folder / "guests" / "guests.yaml").write_text(yaml.safe_dump(content))
    return load_policies(folder / "policies", folder / "guests", CLUSTERS).value


def pod(
    namespace: str = "shop", account: str = "default", cluster: str = "prod", service: str | None = None
) -> PodIdentity:
    return PodIdentity(cluster, namespace, account, "pod", "uid", service)


def reason(policies: PolicySet, host_data: bytes, identity: PodIdentity) -> Reason:
    with pytest.raises(RefusedError) as caught:
        policies.find(host_data, identity)
    return caught.value.reason


def problems(folder: Path, *records: dict[str, Any], guests: Any = None) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load(folder, *records, guests=guests)
    return "\n".join(caught.value.problems)


def test_host_data_finds_the_policy_and_the_token_must_agree(tmp_path: Path) -> None:
    policies = load(tmp_path, policy(), policy("orders", hostData=[OTHER.hex()]))
    assert policies.find(HOST_DATA, pod()).record.workload.service == "payments"
    assert policies.find(OTHER, pod()).record.workload.service == "orders"
    assert policies.find(OTHER, pod(service="orders")).record.workload.service == "orders"
    for wrong in (pod(namespace="a"), pod(account="a"), pod(cluster="stage"), pod(service="payments"), pod(service="")):
        assert reason(policies, OTHER, wrong) is Reason.TOKEN_DISAGREES
    assert reason(policies, bytes(32), pod()) is Reason.NO_POLICY


def test_the_token_finds_a_vm_policy_by_its_account(tmp_path: Path) -> None:
    policies = load(tmp_path, vm("payments", account="payments"), policy("orders"))
    found = policies.find(bytes(32), pod(account="payments"))
    assert found.record.workload.service == "payments"
    assert reason(policies, bytes(32), pod()) is Reason.NO_POLICY
    # A measured guest of somebody else is not judged as vm.
    assert reason(policies, HOST_DATA, pod(account="payments")) is Reason.TOKEN_DISAGREES


def test_with_read_back_the_live_label_tells_services_of_one_account_apart(tmp_path: Path) -> None:
    stage = {"workload": {"cluster": "stage"}}
    policies = load(tmp_path, vm("payments", **stage), vm("orders", **stage))
    for service in ("payments", "orders"):
        found = policies.find(bytes(32), pod(cluster="stage", service=service))
        assert found.record.workload.service == service
    for service in ("", "other"):
        assert reason(policies, bytes(32), pod(cluster="stage", service=service)) is Reason.NO_POLICY


def test_services_that_the_label_tells_apart_may_run_in_the_same_kind_of_guest(tmp_path: Path) -> None:
    both = {"workload": {"cluster": "stage"}, "assurance": "vm"}
    policies = load(tmp_path, policy("payments", **both), policy("orders", **both))
    found = policies.find(HOST_DATA, pod(cluster="stage", service="orders"))
    assert found.record.workload.service == "orders"


def test_two_guests_during_a_rollout(tmp_path: Path) -> None:
    policies = load(tmp_path, policy(hostData=[HOST_DATA.hex(), OTHER.hex()]))
    assert policies.find(HOST_DATA, pod()) is policies.find(OTHER, pod())


@pytest.mark.parametrize(
    ("first", "second", "word", "advice"),
    [
        (policy(), policy(hostData=[OTHER.hex()]), "overlapping", "merge their hostData and guests into one"),
        (policy(), policy(account="other", hostData=[OTHER.hex()]), "overlapping", "merge"),
        (policy(), vm("payments", account="other"), "shadowed", "keep one"),
        (policy(), policy("orders", account="other"), "ambiguous", "measure each workload's initdata on its own"),
        (policy(), vm("orders", account="o") | {"hostData": [HOST_DATA.hex()]}, "ambiguous", "measure each"),
        (vm("payments"), vm("orders"), "ambiguous", "give each Service its own service account"),
        (policy(), vm("orders"), "ambiguous", "give each Service its own service account"),
    ],
)
def test_pairs_of_which_both_could_be_meant_are_refused_with_both_names(
    tmp_path: Path, first: dict[str, Any], second: dict[str, Any], word: str, advice: str
) -> None:
    for records in ((first, second), (second, first)):
        text = problems(tmp_path, *records)
        names = {f"prod/shop/{record['workload']['service']} ({number}.yaml)" for number, record in enumerate(records)}
        assert word in text
        assert advice in text
        assert all(name in text for name in names)


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (policy(hostData=[]), "hostData is empty: assurance workload needs at least one digest"),
        (policy(hostData=["00" * 32]), "a guest without initdata"),
        (policy(hostData=["AB" * 32]), "hostData[0]"),
        (policy(assurance="node"), "assurance"),
        (policy(more=1), "unknown key more"),
        (policy(guests=["simulatd"]), "unknown guest simulatd, did you mean simulated?"),
        (policy(guests=[]), "guests"),
        (policy(workload={"cluster": "prd"}), "unknown cluster prd, did you mean prod?"),
        (policy(workload={"service": "a/b"}), "workload.service"),
        (policy(workload={"service": "*"}), "workload.service"),
        (policy(workload={"namespace": "../shop"}), "workload.namespace"),
        (policy(vault={"mount": "../sys", "role": "r"}), "vault.mount"),
        (policy(vault={"mount": "jwt"}), "vault.role"),
    ],
)
def test_a_wrong_record_is_refused_by_key(tmp_path: Path, record: dict[str, Any], expected: str) -> None:
    assert expected in problems(tmp_path, record)


def test_guests_are_checked_and_named_once(tmp_path: Path) -> None:
    assert "simulated.minTcb" in problems(tmp_path, policy(), guests={"simulated": {**GUEST, "minTcb": {}}})
    (tmp_path / "guests" / "more.yaml").write_text(yaml.safe_dump({"simulated": GUEST}))
    assert "guest simulated is also in guests.yaml" in problems(tmp_path, policy())


def test_a_missing_folder_is_an_error_and_an_empty_one_gives_nobody_anything(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError):
        load_policies(tmp_path / "none", tmp_path / "none", CLUSTERS)
    assert reason(load(tmp_path), HOST_DATA, pod()) is Reason.NO_POLICY


def test_the_digest_changes_with_the_policy_and_with_its_guests(tmp_path: Path) -> None:
    digests = {next(iter(load(tmp_path, policy()).by_digest)) for _ in range(2)}
    digests.add(next(iter(load(tmp_path, policy(hostData=[OTHER.hex()])).by_digest)))
    digests.add(next(iter(load(tmp_path, policy(), guests={"simulated": {**GUEST, "vmpl": 1}}).by_digest)))
    assert len(digests) == 3


def test_hundreds_of_policies_of_one_account_are_no_collision(tmp_path: Path) -> None:
    records = [policy(f"s{number}", hostData=[f"{number + 1:064x}"]) for number in range(500)]
    assert len(load(tmp_path, *records).policies) == 500
