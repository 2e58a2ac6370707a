"""A live login is taken back when the records in force would no longer grant it, and never because one was added."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from attestation.pki.roots import TrustAnchors
from attestation.simulator.device import Device
from attestation.simulator.hierarchy import TCB, Hierarchy
from attestation.verifier.policies.model import AppraisalPolicy, Policy, PolicySet, VaultLogin
from attestation.verifier.session.basis import InForce
from attestation.verifier.withdrawal import LiveLogin, Withdrawals
from kbs.guest import open_token, read_attest_answer
from tests.attestation.verifier.grants import GRANT
from tests.attestation.verifier.own_login import write_app_role
from tests.attestation.verifier.process import GUEST, Site, Verifier, make_site, policy, verifier
from tests.attestation.verifier.test_identity_attacks import api_server
from tests.attestation.verifier.test_refusals import Guest
from tests.attestation.verifier.tokens import Issuer
from tests.support.openbao import OpenBao
from tests.support.until import until

FLOOR = (
    "since the attestation: prod/shop/payments, guest simulated, would not pass tcb/reported-floor, "
    "tcb/committed-floor, tcb/launch-floor"
)
LOGIN = LiveLogin("a", 0.0, GRANT.correlation_id, GRANT.basis, "digest", VaultLogin(mount="jwt-prod", role="knative"))


def test_a_record_is_read_back_as_it_was_written() -> None:
    stored = json.loads(json.dumps(LOGIN.as_dict()))
    assert LiveLogin.from_record(stored) == LOGIN
    for spoilt in ({}, {"basis": {}}, stored | {"more": 1}, stored | {"basis": 1}, stored | {"vault": {"mount": "/"}}):
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
        site.settings["clusters"][0] |= {"readBack": {"url": url, "timeoutSeconds": 10}}
        with verifier(site) as first:
            kept, gone = (logged_in(first, device, issuer.token(pod=f"payments-{n}", uid="uid-1")) for n in (1, 2))
        # The pod ends while no verifier runs.
        (tmp_path / "api/api/v1/namespaces/shop/pods/payments-2").unlink()
        with verifier(site, "second") as second:
            until(lambda: second.events("login_withdrawn"))
            assert not is_alive(bao, gone)
            (line,) = second.events("login_withdrawn")
            assert (line["detail"], line["revoked"]) == ("the pod is gone", True)
            assert is_alive(bao, kept)
            guest = Guest(second.client(), device, issuer.token(pod="payments-1", uid="uid-1"))
            bearer = read_attest_answer(guest.attest().body)
            # An added measurement takes nothing back; a raised floor does, also what lives already.
            more = [*GUEST["measurements"], "1" * 96]
            site.write_guests({"simulated": {**GUEST, "measurements": more}})
            until(lambda: second.events("file_reloaded"))
            assert guest.client.token(bearer).status == 200
            bearer = read_attest_answer(Guest(guest.client, device, issuer.token(uid="uid-1")).attest().body)
            site.write_guests({"simulated": {**GUEST, "minTcb": TCB.as_dict() | {"microcode": TCB.microcode + 1}}})
            until(lambda: len(second.events("login_withdrawn")) == 3)
            assert not is_alive(bao, kept)
            assert [line["detail"] for line in second.events("login_withdrawn")[1:]] == [FLOOR, FLOOR]
            answer = guest.client.token(bearer)
            assert answer.status == 401
            (line,) = second.events("login", answer.error.correlation_id)
            assert (line["reason"], line["detail"]) == ("policy-changed", FLOOR)


def test_a_role_and_a_record_that_are_taken_away_revoke(
    tmp_path: Path, hierarchy: Hierarchy, device: Device, issuer: Issuer, bao: OpenBao, running: Verifier
) -> None:
    site = make_site(tmp_path, hierarchy, issuer, bao.url)
    site.write_policy("payments", policy())
    with_own_login(site, bao, "taking")
    bao.trust([*running.site.public_keys, *site.public_keys])
    with verifier(site) as process:
        first = logged_in(process, device, issuer.token())
        site.write_policy("payments", policy(vault={"mount": "jwt-prod", "role": "other"}))
        until(lambda: not is_alive(bao, first))
        site.write_policy("payments", policy())
        until(lambda: len(process.events("file_reloaded")) == 2)
        second = logged_in(process, device, issuer.token())
        site.policy_path("payments").unlink()
        until(lambda: not is_alive(bao, second))
        until(lambda: len(process.events("login_withdrawn")) == 2)
        details = [line["detail"] for line in process.events("login_withdrawn")]
        assert details == [
            "the record no longer names role knative of jwt-prod",
            "since the attestation: no-policy: for this HOST_DATA or this pod",
        ]


async def test_a_chip_whose_certificate_a_list_names_is_taken_back() -> None:
    lists: dict[str, frozenset[int]] = {"Simulated": frozenset({7})}
    asked: list[str] = []

    class Vault:
        namespace = ""

        async def request(self, _method: str, path: str, body: dict[str, str]) -> None:
            asked.append(f"{path} {body['accessor']}")

    policies = PolicySet.of([Policy("prod/shop/payments", AppraisalPolicy(**policy()), (), LOGIN.granted_by)])
    in_force = InForce(lambda: policies, {}, TrustAnchors())
    kept: list[Mapping[str, Any]] = []
    withdrawals = Withdrawals(cast(Any, Vault()), in_force, {}, lists.__getitem__, kept.append)
    withdrawals.add(replace(LOGIN, at=time.time()))
    await withdrawals.compare()
    assert asked == []
    for serial in LOGIN.basis.attested.serials:
        lists["Simulated"] = frozenset({serial})
        withdrawals.add(replace(LOGIN, at=time.time()))
        await withdrawals.compare()
    assert asked == ["auth/token/revoke-accessor a"] * 2
    assert {record["detail"] for record in kept} == {"a revocation list names the chip's certificate or its issuer"}
