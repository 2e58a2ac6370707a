"""A live login is taken back when the records in force would no longer grant it, and never because one was added."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from attestation.simulator.device import DEFAULT_MEASUREMENT, Device
from attestation.simulator.hierarchy import Hierarchy
from attestation.verifier.cluster.pod_token import PodIdentity
from attestation.verifier.policies.load import PolicyReader
from attestation.verifier.policies.model import PolicySet
from attestation.verifier.withdrawal import LiveLogin
from kbs.guest import open_token, read_attest_answer
from tests.attestation.verifier.own_login import write_app_role
from tests.attestation.verifier.process import GUEST, HOST_DATA, Site, Verifier, make_site, policy, verifier
from tests.attestation.verifier.test_identity_attacks import api_server
from tests.attestation.verifier.test_refusals import Guest
from tests.attestation.verifier.tokens import Issuer
from tests.support.openbao import OpenBao
from tests.support.until import until

OTHER = bytes(reversed(HOST_DATA)).hex()
CHIP = b"\7" * 64
LOGIN = LiveLogin(
    accessor="a",
    at=0.0,
    correlation_id="0123456789abcdef",
    subject="prod/shop/payments",
    assurance="workload",
    guest="simulated",
    measurement=DEFAULT_MEASUREMENT.hex(),
    chip_id=CHIP.hex(),
    host_data=HOST_DATA.hex(),
    pod=PodIdentity("prod", "shop", "default", "payments-1", "uid-1", "payments", node="worker-1"),
    mount="jwt-prod",
    role="knative",
    namespace="",
)
SECOND = {**GUEST, "measurements": ["1" * 96]}


def loaded(*records: dict[str, Any], guests: dict[str, Any]) -> PolicySet:
    entries = {
        "/".join(record["workload"][key] for key in ("cluster", "namespace", "service")): record for record in records
    }
    return PolicyReader({"prod": True}).document({"policies": entries, "guests": guests}, "test").value


@pytest.mark.parametrize(
    ("records", "guests"),
    [
        ([policy()], {"simulated": GUEST}),
        ([policy(hostData=[OTHER, HOST_DATA.hex()])], {"simulated": GUEST}),
        ([policy(guests=["second", "simulated"])], {"simulated": GUEST, "second": SECOND}),
        ([policy()], {"simulated": {**GUEST, "measurements": ["1" * 96, *GUEST["measurements"]]}}),
        ([policy()], {"simulated": {**GUEST, "chipIds": [CHIP.hex(), "1" * 128]}}),
        ([policy(), policy("evil", workload={"namespace": "evil"})], {"simulated": GUEST}),
        ([policy(), policy("other")], {"simulated": GUEST}),
        ([policy(exclusiveServiceAccount=True)], {"simulated": GUEST}),
    ],
)
def test_an_addition_withdraws_nothing(records: list[dict[str, Any]], guests: dict[str, Any]) -> None:
    assert LOGIN.withdrawn(loaded(*records, guests=guests), {"worker-1": frozenset({CHIP})}) == ""


@pytest.mark.parametrize(
    ("records", "guests"),
    [
        ([], {"simulated": GUEST}),
        ([policy("other")], {"simulated": GUEST}),
        ([policy(account="other")], {"simulated": GUEST}),
        ([policy(hostData=[OTHER])], {"simulated": GUEST}),
        ([policy(assurance="vm", hostData=[])], {"simulated": GUEST}),
        ([policy()], {"second": SECOND}),
        ([policy()], {"simulated": SECOND}),
        ([policy(guests=["second"])], {"simulated": GUEST, "second": SECOND}),
        ([policy()], {"simulated": {**GUEST, "chipIds": ["1" * 128]}}),
        ([policy(vault={"mount": "jwt-prod", "role": "other"})], {"simulated": GUEST}),
        ([policy(vault={"mount": "jwt-other", "role": "knative"})], {"simulated": GUEST}),
    ],
)
def test_each_removal_withdraws(records: list[dict[str, Any]], guests: dict[str, Any]) -> None:
    assert LOGIN.withdrawn(loaded(*records, guests=guests), None)


@pytest.mark.parametrize("chips", [{}, {"worker-1": frozenset()}, {"worker-2": frozenset({CHIP})}])
def test_a_chip_that_is_taken_off_its_node_withdraws(chips: dict[str, frozenset[bytes]]) -> None:
    assert LOGIN.withdrawn(loaded(policy(), guests={"simulated": GUEST}), chips).startswith("node-chip")


def test_a_record_is_read_back_as_it_was_written() -> None:
    pod = replace(LOGIN.pod, images=("sha256:a",))
    login = replace(LOGIN, pod=pod)
    assert LiveLogin.from_record(login.as_dict()) == login
    for spoilt in ({}, {"pod": {}}, {**login.as_dict(), "more": 1}, {**login.as_dict(), "pod": 1}):
        assert LiveLogin.from_record(spoilt) is None


def logged_in(running: Verifier, device: Device, token: str) -> str:
    """The Vault token that a guest gets."""
    guest = Guest(running.client(), device, token)
    body = guest.client.token(read_attest_answer(guest.attest().body)).body
    return open_token(body, guest.key, guest.nonce).token


def is_alive(bao: OpenBao, token: str) -> bool:
    return bao.call("GET", "auth/token/lookup-self", token=token)[0] == 200


def with_own_login(site: Site, bao: OpenBao, name: str) -> None:
    files = write_app_role(bao, site.folder, name)
    site.settings["vault"] |= {"login": {"appRole": {key: path.name for key, path in files.items()}}}


def test_a_live_token_is_revoked_within_a_minute_also_after_a_restart(
    tmp_path: Path, hierarchy: Hierarchy, device: Device, issuer: Issuer, bao: OpenBao, running: Verifier
) -> None:
    site = make_site(tmp_path, hierarchy, issuer, bao.url)
    site.write_policy("payments", policy(vault={"mount": "jwt-prod", "role": "knative"}))
    with_own_login(site, bao, "withdrawing")
    bao.trust([*running.site.public_keys, *site.public_keys])
    with api_server(tmp_path / "api", "worker-1", "worker-1") as url:
        site.settings["clusters"][0] |= {"readBack": {"url": url}}
        with verifier(site) as first:
            kept, gone = (logged_in(first, device, issuer.token(pod=f"payments-{n}", uid="uid-1")) for n in (1, 2))
        # The pod ends while no verifier runs.
        (tmp_path / "api/api/v1/namespaces/shop/pods/payments-2").unlink()
        with verifier(site, "second") as second:
            until(lambda: not is_alive(bao, gone), seconds=60)
            (line,) = second.events("login_withdrawn")
            assert (line["detail"], line["revoked"]) == ("the pod is gone", True)
            assert is_alive(bao, kept)
            site.policy_path("payments").unlink()
            until(lambda: not is_alive(bao, kept), seconds=60)
