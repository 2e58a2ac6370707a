"""Vault: what it is told, and every way in which it says no, each known by its own reason."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from joserfc import jwt
from joserfc.jwk import KeySet

from attestation.simulator.device import Device
from attestation.simulator.hierarchy import Hierarchy
from attestation.verifier.peer import Peer
from attestation.verifier.policies.model import VaultLogin
from attestation.verifier.reasons import Reason, RefusedError
from attestation.verifier.session.entitlement import Entitlement
from attestation.verifier.vault import login as module
from attestation.verifier.vault.login import JwtAuth
from attestation.verifier.vault.signing import SigningKeys, load_signing_keys
from kbs.ephemeral_key import EphemeralKey
from kbs.guest import open_token, read_attest_answer
from kbs.messages import ERROR_BASE
from tests.attestation.verifier.process import Verifier, make_site, policy, verifier, write_signing_key
from tests.attestation.verifier.test_refusals import Guest, inside, outside
from tests.attestation.verifier.tokens import Issuer
from tests.support.openbao import MOUNT, ROLE, OpenBao, openbao
from tests.support.until import until_async

NOW = 1_800_000_000.0
LOGIN = VaultLogin(mount="jwt-prod", role="knative", namespace="team")
GRANT = Entitlement(
    "prod/shop/payments",
    {"assurance": "workload", "simulated": "true", "snp_vmpl": "0", "k8s_pod_name": "p"},
    EphemeralKey().public,
    LOGIN,
)
ANSWER = {"auth": {"client_token": "hvs.token", "accessor": "acc", "lease_duration": 600, "renewable": True}}


_HANG_SECONDS = 600.0


class Stub:
    """A Vault whose answer a test chooses."""

    def __init__(self) -> None:
        self.status, self.body, self.hang = 200, json.dumps(ANSWER).encode(), False
        self.requests: list[tuple[str, Any, Any]] = []
        self.tokens: list[str | None] = []
        self.hold: asyncio.Event | None = None
        self.failures = 0

    async def answer(self, request: web.Request) -> web.Response:
        namespace = request.headers.get("X-Vault-Namespace")
        self.requests.append((request.path, namespace, await request.json()))
        self.tokens.append(request.headers.get("X-Vault-Token"))
        if self.hang:
            await asyncio.sleep(_HANG_SECONDS)
        if self.hold is not None:
            await self.hold.wait()
        if self.failures:
            self.failures -= 1
            return web.Response(status=503)
        return web.Response(status=self.status, body=self.body)


@pytest.fixture
async def stub() -> AsyncIterator[tuple[Stub, str]]:
    server = Stub()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", server.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield server, f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> SigningKeys:
    path = tmp_path_factory.mktemp("keys") / "key.pem"
    write_signing_key(path)
    return load_signing_keys([path]).value


def vault(url: str, keys: SigningKeys, seconds: float = 30.0) -> tuple[JwtAuth, Peer]:
    peer = Peer(url, timeout=seconds)
    return JwtAuth(peer, "morphisms-verifier", "vault", lambda: keys, lambda: NOW), peer


async def reason(url: str, keys: SigningKeys, seconds: float = 30.0) -> Reason:
    client, peer = vault(url, keys, seconds)
    with pytest.raises(RefusedError) as caught:
        await client.log_in(GRANT)
    await peer.close()
    assert "eyJ" not in str(caught.value)
    return caught.value.reason


async def test_the_jwt_says_who_for_whom_and_for_a_minute(stub: tuple[Stub, str], keys: SigningKeys) -> None:
    server, url = stub
    client, peer = vault(url, keys)
    login = await client.log_in(GRANT)
    await peer.close()
    assert (login.token, login.accessor, login.lease_seconds, login.renewable) == ("hvs.token", "acc", 600, True)
    assert "hvs.token" not in repr(login)
    path, namespace, body = server.requests[0]
    assert (path, namespace, body["role"]) == ("/v1/auth/jwt-prod/login", "team", "knative")
    token = jwt.decode(body["jwt"], KeySet.import_key_set(json.loads(keys.jwks)), algorithms=["ES256"])
    claims = token.claims
    assert claims.pop("jti")
    assert claims.pop("cnf") == {"jwk": GRANT.tee_pubkey}
    assert claims == {
        **GRANT.claims,
        "iss": "morphisms-verifier",
        "aud": "vault",
        "sub": "prod/shop/payments",
        "iat": NOW,
        "nbf": NOW - 5,
        "exp": NOW + 60,
    }
    assert token.header["kid"] == json.loads(keys.jwks)["keys"][0]["kid"]


@pytest.mark.parametrize(
    ("status", "body", "expected", "is_retryable"),
    [
        (400, {"errors": ["error validating claims"]}, Reason.VAULT_REFUSED, False),
        (403, {"errors": ["permission denied"]}, Reason.VAULT_DENIED, False),
        (404, {"errors": []}, Reason.VAULT_NO_MOUNT, False),
        (412, {"errors": []}, Reason.VAULT_BEHIND, True),
        (429, {"errors": ["quota"]}, Reason.VAULT_LIMITED, True),
        (473, {}, Reason.VAULT_BEHIND, True),
        (500, {"errors": ["internal error"]}, Reason.VAULT_ERROR, True),
        (502, {}, Reason.VAULT_ERROR, True),
        (503, {"errors": ["Vault is sealed"]}, Reason.VAULT_SEALED, True),
        (503, {"errors": ["no healthy upstream"]}, Reason.VAULT_ERROR, True),
        (307, {}, Reason.VAULT_STRANGE, True),
        (200, {}, Reason.VAULT_STRANGE, True),
        (200, {"auth": None}, Reason.VAULT_STRANGE, True),
        (200, {"auth": {"client_token": "", "lease_duration": 1, "renewable": True}}, Reason.VAULT_STRANGE, True),
        (200, {"auth": {"client_token": 1, "lease_duration": 1, "renewable": True}}, Reason.VAULT_STRANGE, True),
        (200, {"more": "a" * (1 << 20)}, Reason.VAULT_UNREACHABLE, True),
    ],
)
async def test_each_no_has_its_reason(
    stub: tuple[Stub, str], keys: SigningKeys, status: int, body: Any, expected: Reason, is_retryable: bool
) -> None:
    server, url = stub
    server.status, server.body = status, json.dumps(body).encode()
    assert await reason(url, keys) is expected
    assert expected.is_retryable is is_retryable


async def test_slow_and_absent_are_two_things(stub: tuple[Stub, str], keys: SigningKeys) -> None:
    server, url = stub
    server.hang = True
    began = time.monotonic()
    assert await reason(url, keys, seconds=0.2) is Reason.VAULT_SLOW
    assert time.monotonic() - began < _HANG_SECONDS / 2
    assert await reason("http://127.0.0.1:1", keys) is Reason.VAULT_UNREACHABLE


async def test_a_login_that_comes_too_late_is_given_back(stub: tuple[Stub, str], keys: SigningKeys) -> None:
    server, url = stub
    server.hold = asyncio.Event()
    client, peer = vault(url, keys, seconds=0.2)
    with pytest.raises(RefusedError, match="vault-slow"):
        await client.log_in(GRANT)
    assert len(client._late) == 1
    server.hold.set()
    await asyncio.gather(*client._late)
    await peer.close()
    assert [path for path, _, _ in server.requests] == ["/v1/auth/jwt-prod/login", "/v1/auth/token/revoke-self"]
    assert server.requests[1][1] == "team"
    assert server.tokens == [None, "hvs.token"]


async def test_while_many_late_logins_are_waited_for_no_other_is_made(
    stub: tuple[Stub, str], keys: SigningKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MAX_LATE", 3)
    server, url = stub
    server.hold = asyncio.Event()
    client, peer = vault(url, keys, seconds=0.2)
    for _ in range(3):
        with pytest.raises(RefusedError, match="vault-slow: no answer"):
            await client.log_in(GRANT)
    with pytest.raises(RefusedError, match="vault-slow: 3 logins"):
        await client.log_in(GRANT)
    await until_async(lambda: len(server.requests) == 3)
    server.hold.set()
    await asyncio.gather(*client._late)
    assert [path for path, _, _ in server.requests[3:]] == ["/v1/auth/token/revoke-self"] * 3
    peer.timeout = 60.0
    assert (await client.log_in(GRANT)).token == "hvs.token"
    await peer.close()


async def test_a_revocation_that_fails_is_tried_again(
    stub: tuple[Stub, str], keys: SigningKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_REVOKE_PAUSE_SECONDS", 0.0)
    server, url = stub
    client, peer = vault(url, keys)
    login = await client.log_in(GRANT)
    server.failures = 2
    client.revoke(login, GRANT)
    await asyncio.gather(*client._late)
    await peer.close()
    assert [path for path, _, _ in server.requests[1:]] == ["/v1/auth/token/revoke-self"] * 3
    assert set(server.tokens[1:]) == {"hvs.token"}


def test_a_sealed_vault_is_distinct_inside_and_retryable_outside(
    tmp_path: Path, hierarchy: Hierarchy, device: Device, issuer: Issuer
) -> None:
    with openbao(tmp_path) as own:
        (tmp_path / "site").mkdir()
        site = make_site(tmp_path / "site", hierarchy, issuer, own.url)
        site.write_policy("payments", policy())
        own.trust(site.public_keys)
        with verifier(site) as running:
            client = running.client()
            bearer = read_attest_answer(Guest(client, device, issuer.token()).attest().body)
            own.done("PUT", "sys/seal")
            for expected, word in (("vault-sealed", "VaultSealed"), ("vault-unreachable", "VaultUnavailable")):
                answer = client.token(bearer)
                assert (answer.status, answer.headers["retry-after"]) == (503, "2")
                assert outside(answer) == {"type": ERROR_BASE + word, "detail": f"{word}, correlation id ID"}
                # The correlation id is one from the evidence to the login, so the last line counts.
                assert running.events("login", answer.error.correlation_id)[-1]["reason"] == expected
                own.process.kill()
                own.process.wait()
            # Neither took the bearer, and a pod that keeps asking is told to wait without another call to Vault.
            reasons: list[str] = []
            while "pod-too-often" not in reasons:
                assert len(reasons) < 1000
                answer = client.token(bearer)
                assert answer.status == 503
                reasons.append(running.events("login", answer.error.correlation_id)[-1]["reason"])
            assert set(reasons[:-1]) == {"vault-unreachable"}


def test_vault_refuses_what_its_own_role_does_not_allow(
    running: Verifier, bao: OpenBao, device: Device, issuer: Issuer
) -> None:
    """Vault's word stands: a role that wants more than the verifier says gives nothing, and no second answer."""
    bao.write_role(bound_claims={"simulated": "false"})
    try:
        client = running.client()
        bearer = read_attest_answer(Guest(client, device, issuer.token(uid="claims")).attest().body)
        answer = client.token(bearer)
        assert answer.status == 401
        assert inside(running, answer, "login")[0] == "vault-refused"
    finally:
        bao.write_role()


def test_the_login_is_vaults_own_identity_of_the_workload(
    running: Verifier, bao: OpenBao, device: Device, issuer: Issuer
) -> None:
    guest = Guest(running.client(), device, issuer.token(uid="identity"))
    bearer = read_attest_answer(guest.attest().body)
    token = open_token(guest.client.token(bearer).body, guest.key, guest.nonce)
    assert (token.lease_seconds, token.assurance, token.simulated) == (600, "workload", True)
    data = bao.done("POST", "auth/token/lookup", {"token": token.token})["data"]
    assert data["explicit_max_ttl"] == 3600
    assert data["display_name"] == f"{MOUNT}-prod/shop/payments"
    assert {data["meta"][name] for name in ("cluster", "namespace", "service")} == {"prod", "shop", "payments"}
    (line,) = [each for each in running.events("login") if each["accessor"] == data["accessor"]]
    assert line["subject"] == "prod/shop/payments"


def test_the_bearer_itself_opens_nothing_at_vault(
    running: Verifier, bao: OpenBao, device: Device, issuer: Issuer
) -> None:
    bearer = read_attest_answer(Guest(running.client(), device, issuer.token(uid="bearer")).attest().body)
    status, _ = bao.call("POST", f"auth/{MOUNT}/login", {"role": ROLE, "jwt": bearer}, token="")
    assert status in (400, 403)
    claims = json.loads(base64.urlsafe_b64decode(bearer.split(".")[1] + "=="))
    assert claims["exp"] - claims["iat"] == 60
    assert claims["cnf"]["jwk"]["crv"] == "P-256"
