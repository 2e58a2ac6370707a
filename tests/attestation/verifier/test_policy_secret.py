"""Policies and guests in Vault's KV engine, against a real OpenBao."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from attestation.simulator.device import Device
from attestation.simulator.hierarchy import Hierarchy
from attestation.verifier.policies.vault_secret import PolicySecret
from attestation.verifier.reasons import Reason, RefusedError
from server.watched import FileMetrics
from tests.attestation.verifier.own_login import write_app_role
from tests.attestation.verifier.process import GUEST, make_site, policy, verifier
from tests.attestation.verifier.test_credentials import kept, role
from tests.attestation.verifier.test_refusals import Guest, inside
from tests.attestation.verifier.tokens import Issuer
from tests.support.openbao import OpenBao
from tests.support.until import until, until_async

PAYMENTS = "prod/shop/payments"


def write(bao: OpenBao, name: str, policies: dict[str, Any], **more: Any) -> None:
    document = {"policies": policies, "guests": {"simulated": GUEST}} | more
    bao.done("POST", f"secret/data/verifier/{name}", {"data": document})


async def test_a_good_version_is_followed_and_outlives_bad_ones(tmp_path: Path, bao: OpenBao) -> None:
    files = FileMetrics(CollectorRegistry())
    async with kept(bao.url, role(write_app_role(bao, tmp_path, "policies"))) as own:
        await until_async(lambda: own.check() is None)
        secret = PolicySecret(own, "secret", "verifier/followed", {"prod": False}, files)
        await secret.refresh()
        assert secret.check() == "policies-unavailable"
        with pytest.raises(RefusedError, match="verifier/followed: there is no such secret") as caught:
            _ = secret.value
        assert caught.value.reason is Reason.POLICIES_UNAVAILABLE
        write(bao, "followed", {PAYMENTS: policy()})
        await secret.refresh()
        good = secret.value
        assert (secret.check(), [each.name for each in good.policies]) == (None, [PAYMENTS])

        bad: list[tuple[dict[str, Any], dict[str, Any]]] = [
            ({PAYMENTS: policy(), "prod/shop/other": policy("other")}, {}),
            ({PAYMENTS: policy(), "b": policy("other", account="other")}, {}),
            ({PAYMENTS: policy(workload={"cluster": "other"})}, {}),
            ({PAYMENTS: {"assurance": "vm"}}, {}),
            ({PAYMENTS: policy()}, {"guests": {"simulated": {"product": "Pentium"}}}),
            ({PAYMENTS: policy()}, {"guests": {"simulated": "text"}}),
            ({PAYMENTS: policy()}, {"guests": {"simulated": GUEST, "other": {"product": "Pentium"}}}),
            ({PAYMENTS: policy()}, {"guests": []}),
            ({PAYMENTS: policy()}, {"polices": {}}),
        ]
        for policies, more in bad:
            write(bao, "followed", policies, **more)
            await secret.refresh()
            assert files.success.labels("policies")._value.get() == 0, (policies, more)
            assert secret.value.policies == good.policies
        # A record whose guest is gone is withdrawn, and so is everything when the secret is deleted.
        write(bao, "followed", {PAYMENTS: policy(guests=["gone"])})
        await secret.refresh()
        assert secret.value.policies == ()
        write(bao, "followed", {PAYMENTS: policy()})
        await secret.refresh()
        assert secret.value.policies == good.policies
        bao.done("DELETE", "secret/data/verifier/followed")
        await secret.refresh()
        assert secret.value.policies == ()
        write(bao, "followed", {PAYMENTS: policy()})
        await secret.refresh()
        assert secret.value.policies == good.policies
        bao.done("DELETE", "secret/metadata/verifier/followed")
        await secret.refresh()
        assert secret.value.policies == ()
        write(bao, "followed", {})
        await secret.refresh()
        assert secret.value.policies == ()


async def test_an_unchanged_version_is_not_read_again_and_a_remade_secret_is(tmp_path: Path, bao: OpenBao) -> None:
    files = FileMetrics(CollectorRegistry())
    async with kept(bao.url, role(write_app_role(bao, tmp_path, "remade"))) as own:
        await until_async(lambda: own.check() is None)
        secret = PolicySecret(own, "secret", "verifier/remade", {"prod": False}, files)
        write(bao, "remade", {PAYMENTS: policy()})
        await secret.refresh()
        first = secret.value
        await secret.refresh()
        assert secret.value is first
        bao.done("DELETE", "secret/metadata/verifier/remade")
        write(bao, "remade", {})
        await secret.refresh()
        assert secret.value.policies == ()


def test_a_verifier_lives_on_what_vault_holds(
    tmp_path: Path, hierarchy: Hierarchy, device: Device, issuer: Issuer, bao: OpenBao
) -> None:
    site = make_site(tmp_path, hierarchy, issuer, bao.url)
    files = write_app_role(bao, tmp_path, "living")
    site.settings["vault"] |= {"login": {"appRole": {key: path.name for key, path in files.items()}}}
    del site.settings["policies"], site.settings["guests"]
    site.settings["policyVault"] = {"path": "verifier/living"}
    with verifier(site) as running:
        client = running.client()
        early = Guest(client, device, issuer.token(uid="early")).attest()
        assert (early.status, inside(running, early)[0]) == (503, "policies-unavailable")
        assert b"[-]policies: policies-unavailable" in client.call("GET", "/readyz").body
        write(bao, "living", {PAYMENTS: policy()})
        until(lambda: running.events("policies_loaded"))
        assert Guest(client, device, issuer.token(uid="a")).attest().status == 200
        assert b"policies" not in client.call("GET", "/readyz").body
        write(bao, "living", {})
        until(lambda: len(running.events("policies_loaded")) == 2)
        late = Guest(client, device, issuer.token(uid="b")).attest()
        assert (late.status, inside(running, late)[0]) == (401, "no-policy")
