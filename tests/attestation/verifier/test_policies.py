"""Appraisal policies: found by HOST_DATA or by the token, and refused at load when two could be meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from attestation.verifier.cluster.pod_token import PodIdentity
from attestation.verifier.policies.load import PolicyReader, load_policies
from attestation.verifier.policies.model import PolicySet
from attestation.verifier.reasons import Reason, RefusedError
from server.yaml.strict import ConfigurationError
from tests.attestation.verifier.process import GUEST, HOST_DATA, policy

OTHER = bytes(range(1, 33))
CLUSTERS = {"prod": False, "stage": True}


def vm(service: str, **changes: Any) -> dict[str, Any]:
    return policy(service, assurance="vm", **{"hostData": [], "exclusiveServiceAccount": True, **changes})


def write(folder: Path, record: dict[str, Any], at: str = "") -> Path:
    """Write a record where it belongs, or at another key."""
    workload = record["workload"]
    path = folder / "policies" / f"{at or '/'.join(workload[key] for key in ('cluster', 'namespace', 'service'))}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(record))
    return path


def load(folder: Path, *records: dict[str, Any], guests: Any = None) -> PolicySet:
    for name in ("policies", "guests"):
        (folder / name).mkdir(exist_ok=True)
    for record in records:
        write(folder, record)
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
    # Another account's record lists this HOST_DATA, which is public: it changes nothing for this account.
    assert policies.find(HOST_DATA, pod(account="payments")) is found


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


def test_a_guest_measured_for_another_service_of_the_account_is_not_appraised_as_vm(tmp_path: Path) -> None:
    stage = {"workload": {"cluster": "stage"}}
    policies = load(tmp_path, policy("payments", **stage), vm("orders", **stage))
    assert reason(policies, HOST_DATA, pod(cluster="stage", service="orders")) is Reason.TOKEN_DISAGREES
    listed = load(tmp_path, vm("orders", hostData=[HOST_DATA.hex()], **stage))
    assert listed.find(HOST_DATA, pod(cluster="stage", service="orders")).record.workload.service == "orders"


@pytest.mark.parametrize(
    "foreign",
    [
        policy("evil", workload={"namespace": "evil"}),
        policy("evil", account="evil"),
        policy("evil", workload={"cluster": "stage"}),
        policy("payments", workload={"namespace": "evil"}),
        vm("evil", account="evil", hostData=[HOST_DATA.hex()]),
    ],
)
@pytest.mark.parametrize("ours", [policy(), vm("payments", account="own"), policy(account="own")])
def test_a_foreign_record_that_lists_our_digest_changes_nothing(
    tmp_path: Path, ours: dict[str, Any], foreign: dict[str, Any]
) -> None:
    account = ours["workload"]["serviceAccount"]
    found = load(tmp_path, ours, foreign).find(HOST_DATA, pod(account=account))
    assert found.name == "prod/shop/payments"


@pytest.mark.parametrize(
    ("first", "second", "advice"),
    [
        (policy(), policy("orders"), "measure each workload's initdata on its own"),
        (vm("payments", account="a"), vm("orders", account="a"), "give each Service its own service account"),
        (policy(account="a"), vm("orders", account="a"), "give each Service its own service account"),
    ],
)
def test_of_two_records_that_one_pod_could_mean_the_new_one_is_left_out(
    tmp_path: Path, first: dict[str, Any], second: dict[str, Any], advice: str
) -> None:
    names = [f"prod/shop/{record['workload']['service']}" for record in (first, second)]
    for order in ((first, second), (second, first)):
        folder = tmp_path / order[0]["workload"]["service"]
        folder.mkdir()
        # From the start neither counts: nothing says which of the two was meant.
        text = problems(folder, *order)
        assert advice in text
        assert all(name in text for name in names)
        reader = PolicyReader(CLUSTERS)
        (folder / "policies" / f"prod/shop/{order[1]['workload']['service']}.yaml").unlink()
        assert reader.folders(folder / "policies", folder / "guests").problems == ()
        write(folder, order[1])
        loaded = reader.folders(folder / "policies", folder / "guests")
        assert [each.record.workload.service for each in loaded.value.policies] == [order[0]["workload"]["service"]]
        assert advice in "".join(loaded.problems)


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (vm("payments", exclusiveServiceAccount=False), "workload.serviceAccount is default, under which any pod of"),
        (vm("payments"), "set readBack for cluster prod in the verifier's configuration, or give the Service an"),
        (vm("payments"), "serviceAccount: payments, and exclusiveServiceAccount: true"),
        (vm("payments", account="payments", exclusiveServiceAccount=False), "exclusiveServiceAccount: true"),
    ],
)
def test_assurance_vm_without_read_back_demands_an_account_of_its_own(
    tmp_path: Path, record: dict[str, Any], expected: str
) -> None:
    assert expected in problems(tmp_path, record)


@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("account", ["default", "payments"])
def test_assurance_vm_with_read_back_demands_none(tmp_path: Path, account: str, *, exclusive: bool) -> None:
    record = vm("payments", account=account, exclusiveServiceAccount=exclusive, workload={"cluster": "stage"})
    assert len(load(tmp_path, record).policies) == 1


def test_a_mounted_config_map_has_no_folders(tmp_path: Path) -> None:
    load(tmp_path)
    write(tmp_path, policy(), "prod.shop.payments")
    assert [each.name for each in load(tmp_path).policies] == ["prod/shop/payments"]
    write(tmp_path, policy())
    assert "is the same record; remove one" in problems(tmp_path)


@pytest.mark.parametrize(
    "at",
    [
        "payments",
        "prod.shop",
        "prod.shop.other",
        "a.prod.shop.payments",
        "prod/payments",
        "prod/shop/other",
        "stage/shop/payments",
        "prod/x/payments",
    ],
)
def test_a_record_elsewhere_than_at_its_workload_is_refused_with_the_right_path(tmp_path: Path, at: str) -> None:
    load(tmp_path)
    write(tmp_path, policy(), at)
    assert f"{tmp_path}/policies/prod/shop/payments.yaml" in problems(tmp_path)
    (tmp_path / "policies" / f"{at}.yaml").write_text("assurance: [")
    assert f"{tmp_path}/policies/" in problems(tmp_path)


def test_an_image_that_may_run_without_a_document_proves_no_workload(tmp_path: Path) -> None:
    stock = {key: value for key, value in GUEST.items() if key != "initdata"}
    found = problems(tmp_path, policy(), guests={"simulated": stock})
    assert "does not state initdata: enforced, which assurance workload needs" in found
    assert load(tmp_path, policy(), guests={"simulated": GUEST}).policies
    (tmp_path / "vm").mkdir()
    assert load(tmp_path / "vm", vm("payments", account="payments"), guests={"simulated": stock}).policies


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
        (policy(workload={"service": "Pay"}), "workload.service"),
        (policy(workload={"namespace": "sh op"}), "workload.namespace"),
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
    digests = {load(tmp_path, policy()).policies[0].digest for _ in range(2)}
    digests.add(load(tmp_path, policy(hostData=[OTHER.hex()])).policies[0].digest)
    digests.add(load(tmp_path, policy(), guests={"simulated": {**GUEST, "vmpl": 1}}).policies[0].digest)
    assert len(digests) == 3


def test_hundreds_of_policies_of_one_account_are_no_collision(tmp_path: Path) -> None:
    records = [policy(f"s{number}", hostData=[f"{number + 1:064x}"]) for number in range(500)]
    assert len(load(tmp_path, *records).policies) == 500
