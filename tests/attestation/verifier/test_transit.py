"""The signing key in Vault transit, against a real OpenBao: it signs, it turns, and it is not anything else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from attestation.simulator.device import Device
from attestation.simulator.hierarchy import Hierarchy
from attestation.verifier.handlers import JWKS_PATH
from attestation.verifier.reasons import Reason, RefusedError
from attestation.verifier.vault.transit import TransitKeys
from kbs.guest import read_attest_answer
from tests.attestation.verifier.own_login import make_transit_key, write_app_role
from tests.attestation.verifier.process import Verifier, make_site, policy, verifier
from tests.attestation.verifier.test_credentials import kept, role
from tests.attestation.verifier.test_refusals import Guest
from tests.attestation.verifier.tokens import Issuer
from tests.support.openbao import OpenBao
from tests.support.until import until, until_async


def read(token: str, jwks: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    decoded = jwt.decode(token, KeySet.import_key_set(json.loads(jwks)), algorithms=["ES256"])
    return decoded.header, decoded.claims


async def test_the_newest_version_signs_and_those_allowed_are_listed(tmp_path: Path, bao: OpenBao) -> None:
    make_transit_key(bao, "turning")
    async with kept(bao.url, role(write_app_role(bao, tmp_path, "turning"))) as own:
        await until_async(lambda: own.check() is None)
        keys = TransitKeys(own, "transit", "turning")
        assert keys.check() == "vault-credentials"
        with pytest.raises(RefusedError):
            _ = keys.jwks
        await keys.refresh()
        assert keys.check() is None
        before = keys.jwks
        (first,) = json.loads(before)["keys"]
        assert {name: first[name] for name in ("kty", "crv", "use", "alg")} == {
            "kty": "EC",
            "crv": "P-256",
            "use": "sig",
            "alg": "ES256",
        }
        token = await keys.sign({"sub": "a"})
        assert read(token, before) == ({"alg": "ES256", "kid": first["kid"], "typ": "JWT"}, {"sub": "a"})

        bao.done("POST", "transit/keys/turning/rotate")
        # Until the rotation is seen, the version whose id is in the header signs.
        read(await keys.sign({}), before)
        await keys.refresh()
        second, again = json.loads(keys.jwks)["keys"]
        assert again == first
        token = await keys.sign({})
        assert read(token, keys.jwks)[0]["kid"] == second["kid"]
        with pytest.raises((JoseError, ValueError)):
            read(token, before)

        bao.done("POST", "transit/keys/turning/rotate")
        bao.done("POST", "transit/keys/turning/config", {"min_decryption_version": 3, "min_encryption_version": 3})
        # The version known here may not sign any more: read anew, signed all the same.
        token = await keys.sign({})
        (third,) = json.loads(keys.jwks)["keys"]
        assert third["kid"] not in (first["kid"], second["kid"])
        assert read(token, keys.jwks)[0]["kid"] == third["kid"]


async def test_a_key_of_another_kind_is_refused_and_the_last_good_one_kept(tmp_path: Path, bao: OpenBao) -> None:
    make_transit_key(bao, "kept")
    make_transit_key(bao, "rsa", "rsa-2048")
    async with kept(bao.url, role(write_app_role(bao, tmp_path, "kinds"))) as own:
        await until_async(lambda: own.check() is None)
        for name, reason in (("rsa", "vault-strange"), ("none", "vault-no-mount")):
            keys = TransitKeys(own, "transit", name)
            await keys.refresh()
            assert keys.check() == reason
        keys = TransitKeys(own, "transit", "kept")
        await keys.refresh()
        before = keys.jwks
        bao.done("POST", "transit/keys/kept/config", {"deletion_allowed": True})
        bao.done("DELETE", "transit/keys/kept")
        await keys.refresh()
        assert (keys.check(), keys.jwks) == (None, before)
        with pytest.raises(RefusedError) as caught:
            await keys.sign({})
        assert caught.value.reason in (Reason.VAULT_REFUSED, Reason.VAULT_NO_MOUNT, Reason.VAULT_ERROR)


def listed(running: Verifier) -> list[dict[str, str]]:
    answer = running.client().call("GET", JWKS_PATH)
    found: list[dict[str, str]] = json.loads(answer.body)["keys"] if answer.status == 200 else []
    return found


def test_a_guest_logs_in_by_a_key_that_never_leaves_vault(
    tmp_path: Path, hierarchy: Hierarchy, device: Device, issuer: Issuer, bao: OpenBao
) -> None:
    """Vault follows `jwks_url`, so that a rotation needs nothing but itself."""
    make_transit_key(bao, "verifier")
    site = make_site(tmp_path, hierarchy, issuer, bao.url)
    files = write_app_role(bao, tmp_path, "process")
    site.settings["vault"] |= {"issuer": "transit", "login": {"appRole": {k: v.name for k, v in files.items()}}}
    site.settings["signing"] = {"transit": {"key": "verifier"}}
    site.write_policy("payments", policy(vault={"mount": "jwt-transit", "role": "knative"}))
    with verifier(site) as running:
        until(lambda: listed(running))
        bao.done("POST", "sys/auth/jwt-transit", {"type": "jwt"})
        config = {
            "jwks_url": f"https://127.0.0.1:{running.port}{JWKS_PATH}",
            "jwks_ca_pem": (tmp_path / "ca.crt").read_text(),
            "bound_issuer": "transit",
            "jwt_supported_algs": ["ES256"],
        }
        bao.done("POST", "auth/jwt-transit/config", config)
        settings = {"role_type": "jwt", "user_claim": "sub", "bound_audiences": ["vault"], "clock_skew_leeway": 5}
        bao.done("POST", "auth/jwt-transit/role/knative", settings)
        client = running.client()

        def attested() -> str:
            return read_attest_answer(Guest(client, device, issuer.token()).attest().body)

        assert client.token(attested()).status == 200
        bao.done("POST", "transit/keys/verifier/rotate")
        until(lambda: len(listed(running)) == 2)
        assert client.token(attested()).status == 200
        # Without its key the verifier says so, and the guest may come again.
        bao.done("DELETE", "sys/policies/acl/process")
        assert client.token(attested()).status == 503
        assert running.events("login")[-1]["reason"] == "vault-credentials"
