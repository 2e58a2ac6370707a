"""A set-up Vault lets a workload read its own prefix and no other's; a second run changes nothing."""

from __future__ import annotations

import http.server
import threading
import time
from dataclasses import replace

import pytest

from attestation.verifier.peer import Peer
from attestation.verifier.policies.model import VaultLogin
from attestation.verifier.reasons import Reason, RefusedError
from attestation.verifier.session.entitlement import Entitlement
from attestation.verifier.vault.login import JWT_SECONDS, JwtAuth, Login
from attestation.verifier.vault.signing import load_signing_keys
from kbs.ephemeral_key import EphemeralKey
from tests.attestation.verifier.process import Site, policy, write_signing_key
from tests.cli.vault_setup.conftest import Setup, everything
from tests.support.openbao import OpenBao

GRANT = Entitlement(
    "prod/shop/payments",
    {
        "assurance": "workload",
        "simulated": "false",
        "cluster": "prod",
        "namespace": "shop",
        "service": "payments",
        "k8s_pod_name": "p",
    },
    EphemeralKey().public,
    VaultLogin(mount="jwt-prod", role="knative"),
)


async def log_in(
    site: Site, login: VaultLogin, grant: Entitlement = GRANT, key: str = "signing.pem", late: float = 0
) -> Login:
    """As the verifier does it, with its own minting. `late`: seconds since the JWT was minted."""
    keys = load_signing_keys([site.folder / key]).value
    peer = Peer(site.vault_url)
    try:
        issuer, audience = "morphisms-verifier", "vault"
        auth = JwtAuth(peer, issuer, audience, lambda: keys, lambda: time.time() - late)
        return await auth.log_in(replace(grant, vault=login))
    finally:
        await peer.close()


def with_claims(**claims: str) -> Entitlement:
    return replace(GRANT, claims={**GRANT.claims, **claims})


async def test_a_workload_reads_its_own_secrets_and_not_its_neighbours(
    setup: Setup, site: Site, mount: str, bao: OpenBao
) -> None:
    assert setup().code == 0
    login = await log_in(site, VaultLogin(mount=mount, role="knative"))
    assert login.lease_seconds == 600
    for path, expected in (
        ("secret/data/knative/prod/shop/payments/db", 200),
        ("secret/data/knative/prod/shop/neighbour/db", 403),
        ("secret/data/knative/prod/shop/payments", 403),
        ("secret/metadata/knative/prod/shop/payments/db", 403),
    ):
        assert bao.call("GET", path, token=login.token)[0] == expected, path
    written = bao.call("POST", "secret/data/knative/prod/shop/payments/db", {"data": {}}, token=login.token)
    assert written[0] == 403
    data = bao.done("POST", "auth/token/lookup", {"token": login.token})["data"]
    assert data["explicit_max_ttl"] == 3600
    other = replace(with_claims(service="neighbour"), subject="prod/shop/neighbour")
    token = (await log_in(site, VaultLogin(mount=mount, role="knative"), other)).token
    assert bao.call("GET", "secret/data/knative/prod/shop/payments/db", token=token)[0] == 403
    assert bao.call("GET", "secret/data/knative/prod/shop/neighbour/db", token=token)[0] == 200


async def test_the_role_refuses_claims_that_the_verifier_never_makes(
    setup: Setup, site: Site, mount: str, bao: OpenBao
) -> None:
    setup()
    login = VaultLogin(mount=mount, role="knative")
    await log_in(site, login)
    # Read, not tried: seconds may pass on the way to Vault.
    assert bao.done("GET", f"auth/{mount}/role/knative")["data"]["clock_skew_leeway"] == 5
    cases = [
        (with_claims(assurance="none"), "signing.pem", 0),
        (GRANT, "signing.pem", JWT_SECONDS + 9),
        (GRANT, "foreign.pem", 0),
    ]
    write_signing_key(site.folder / "foreign.pem")
    for grant, key, late in cases:
        with pytest.raises(RefusedError) as caught:
            await log_in(site, login, grant, key, late)
        assert caught.value.reason in (Reason.VAULT_REFUSED, Reason.VAULT_DENIED)


def test_a_second_run_finds_nothing_to_change(setup: Setup, mount: str, bao: OpenBao) -> None:
    first = setup()
    assert "made 4 changes" in first.out
    for line in (f"+ sys/auth/{mount} (new)", f"+ auth/{mount}/config (new)", f"+ auth/{mount}/role/knative (new)"):
        assert line in first.out
    held = everything(bao)
    second = setup()
    assert (second.code, second.out) == (0, "nothing to change\n")
    assert setup("--dry-run").code == 0
    assert everything(bao) == held


def test_a_dry_run_prints_the_changes_and_makes_none(setup: Setup, mount: str, bao: OpenBao) -> None:
    held = everything(bao)
    done = setup("--dry-run")
    assert (done.code, everything(bao)) == (1, held)
    assert f'+     token_policies: ["knative-{mount}"]' in done.out
    assert "+     clock_skew_leeway: 5" in done.out
    assert "<accessor of the new mount>.metadata.service}}/*" in done.out
    assert "made" not in done.out


def test_drift_is_shown_and_corrected_and_a_stricter_setting_stays(setup: Setup, mount: str, bao: OpenBao) -> None:
    setup()
    role = bao.done("GET", f"auth/{mount}/role/knative")["data"]
    tight = {"assurance": ["workload"], "namespace": ["shop"]}
    changed = {"bound_claims": tight, "token_ttl": 86400, "token_bound_cidrs": ["127.0.0.0/8"]}
    keep = {name: role[name] for name in ("role_type", "user_claim", "bound_audiences")}
    bao.done("POST", f"auth/{mount}/role/knative", keep | changed)
    bao.done("PUT", f"sys/policies/acl/knative-{mount}", {"policy": 'path "secret/*" { capabilities = ["read"] }'})
    done = setup()
    assert (done.code, "made 2 changes" in done.out) == (0, True)
    for line in ("-     token_ttl: 86400", "+     token_ttl: 600", '-     path "secret/*" { capabilities = ["read"] }'):
        assert line in done.out.splitlines()
    assert "bound_claims" not in done.out
    after = bao.done("GET", f"auth/{mount}/role/knative")["data"]
    assert (after["bound_claims"], after["token_ttl"]) == (tight, 600)
    assert after["token_bound_cidrs"] == ["127.0.0.0/8"]
    wide = {"assurance": ["workload", "vm", "none"]}
    bao.done("POST", f"auth/{mount}/role/knative", keep | {"bound_claims": wide})
    assert '-     bound_claims: {"assurance": ["none", "vm", "workload"]}' in setup().out
    bound = bao.done("GET", f"auth/{mount}/role/knative")["data"]["bound_claims"]
    assert {name: set(values) for name, values in bound.items()} == {"assurance": {"workload", "vm"}}


async def test_a_role_that_a_pattern_narrowed_is_not_widened(
    setup: Setup, site: Site, mount: str, bao: OpenBao
) -> None:
    setup()
    role = bao.done("GET", f"auth/{mount}/role/knative")["data"]
    narrowed = {"bound_claims_type": "glob", "bound_claims": {"assurance": ["work*"]}}
    batch = {"token_type": "batch", "token_period": 0, "groups_claim": "service"}
    keep = {name: role[name] for name in ("role_type", "user_claim", "bound_audiences", "token_policies")}
    bao.done("POST", f"auth/{mount}/role/knative", keep | narrowed | batch)
    done = setup()
    after = bao.done("GET", f"auth/{mount}/role/knative")["data"]
    assert (after["bound_claims"], after["token_type"]) == ({"assurance": ["workload"]}, "service")
    assert f"auth/{mount}/role/knative: groups_claim stays as it is: a login also gets" in done.err
    assert "bound_claims.assurance stays narrower than" in done.err


async def test_vault_knows_of_each_login_on_what_evidence_it_rests(
    setup: Setup, site: Site, mount: str, bao: OpenBao
) -> None:
    setup()
    evidence = {"guest": "kata-3.21-snp", "k8s_pod_uid": "uid-1", "correlation_id": "0123456789abcdef"}
    login = await log_in(site, VaultLogin(mount=mount, role="knative"), with_claims(**evidence))
    meta = bao.done("POST", "auth/token/lookup-accessor", {"accessor": login.accessor})["data"]["meta"]
    names = {"role", "cluster", "namespace", "service", "assurance", "guest", "k8s_pod_uid", "correlation_id"}
    assert set(meta) == names
    assert (meta["assurance"], meta["service"]) == ("workload", "payments")
    assert {name: meta[name] for name in evidence} == evidence


async def test_both_keys_are_accepted_during_a_rotation_and_then_one(
    setup: Setup, site: Site, mount: str, bao: OpenBao
) -> None:
    setup()
    bao.done("POST", f"auth/{mount}/config", _config(bao, mount) | {"default_role": "knative"})
    write_signing_key(site.folder / "next.pem")
    login = VaultLogin(mount=mount, role="knative")
    site.settings["signing"] = {"keys": ["next.pem", "signing.pem"]}
    done = setup()
    assert "made 1 change\n" in done.out
    old, new = (load_signing_keys([site.folder / name]).value.signer_id for name in ("signing.pem", "next.pem"))
    assert all(f"key {each}" in done.out for each in (old, new))
    for key in ("next.pem", "signing.pem"):
        await log_in(site, login, key=key)
    assert _config(bao, mount)["default_role"] == "knative"
    site.settings["signing"] = {"keys": ["next.pem"]}
    setup()
    await log_in(site, login, key="next.pem")
    with pytest.raises(RefusedError):
        await log_in(site, login, key="signing.pem")


class _Published(http.server.BaseHTTPRequestHandler):
    """A verifier's jwks.json."""

    content: bytes

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()
        self.wfile.write(self.content)

    def log_message(self, *_arguments: object) -> None:
        pass


async def test_vault_fetches_the_keys_from_the_given_url(setup: Setup, site: Site, mount: str) -> None:
    jwks = load_signing_keys([site.folder / "signing.pem"]).value.jwks
    login = VaultLogin(mount=mount, role="knative")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("H", (_Published,), {"content": jwks})) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        setup()
        options = ("--jwks-url", f"http://127.0.0.1:{server.server_port}/.well-known/jwks.json")
        # The signing key may belong to the verifier alone.
        site.settings["signing"] = {"keys": ["gone.pem"]}
        done = setup(*options)
        assert (done.code, "+     jwks_url: http://127.0.0.1:" in done.out) == (0, True)
        assert "-     jwt_validation_pubkeys: key " in done.out
        assert setup(*options).out == "nothing to change\n"
        await log_in(site, login)
        server.shutdown()
    site.settings["signing"] = {"keys": ["signing.pem"]}
    assert "-     jwks_url: " in setup().out
    await log_in(site, login)


def _config(bao: OpenBao, mount: str) -> dict[str, object]:
    data = bao.done("GET", f"auth/{mount}/config")["data"]
    return {name: data[name] for name in data if name.startswith(("jwt_", "bound_", "default_"))}


async def test_two_mounts_do_not_share_a_policy(setup: Setup, site: Site, mount: str, bao: OpenBao) -> None:
    other = {"service": "neighbour", "serviceAccount": "other"}
    changes = {"workload": other, "hostData": ["cd" * 32], "vault": {"mount": f"{mount}-b", "role": "second"}}
    site.write_policy("neighbour", policy("neighbour", account="other", **changes))
    done = setup()
    assert "made 8 changes" in done.out
    assert setup().out == "nothing to change\n"
    for login in (VaultLogin(mount=mount, role="knative"), VaultLogin(mount=f"{mount}-b", role="second")):
        token = (await log_in(site, login)).token
        assert bao.call("GET", "secret/data/knative/prod/shop/payments/db", token=token)[0] == 200


async def test_options_stand_in_for_policies_and_defaults_for_options(setup: Setup, site: Site, bao: OpenBao) -> None:
    bao.done("POST", "sys/mounts/other-kv", {"type": "kv", "options": {"version": "2"}})
    bao.done("POST", "other-kv/data/a/b/prod/shop/payments/db", {"data": {"password": "x"}})
    options = ("--mount", "own/jwt", "--role", "app", "--kv-mount", "other-kv", "--kv-prefix", "a/b")
    assert setup(*options).code == 0
    token = (await log_in(site, VaultLogin(mount="own/jwt", role="app"))).token
    assert bao.call("GET", "other-kv/data/a/b/prod/shop/payments/db", token=token)[0] == 200
    assert bao.call("GET", "secret/data/knative/prod/shop/payments/db", token=token)[0] == 403
    none = setup("--dry-run")
    assert "no appraisal policy names a mount yet" in none.err
    assert "+ auth/jwt-prod/role/knative (new)" in none.out


def test_a_kv_engine_of_version_1_is_reported(setup: Setup, mount: str, bao: OpenBao) -> None:
    bao.done("POST", "sys/mounts/old-kv", {"type": "kv", "options": {"version": "1"}})
    assert "old-kv/: is not KV version 2" in setup("--dry-run", "--kv-mount", "old-kv").err
    assert "KV" not in setup("--dry-run").err


def test_texts_out_of_vault_do_not_steer_the_terminal(setup: Setup, mount: str, bao: OpenBao) -> None:
    bao.done("PUT", f"sys/policies/acl/knative-{mount}", {"policy": "# \x1b[2J\n"})
    assert "-     # ?[2J" in setup("--dry-run").out


async def test_a_namespace_has_its_own(setup: Setup, site: Site, bao: OpenBao) -> None:
    bao.done("POST", "sys/namespaces/team")
    done = setup("--mount", "jwt-ns", "--namespace", "team")
    assert "+ sys/auth/jwt-ns (new) in namespace team" in done.out
    assert (await log_in(site, VaultLogin(mount="jwt-ns", role="knative", namespace="team"))).token
    assert "jwt-ns/" not in bao.done("GET", "sys/auth")["data"]
    assert "secret/: this secrets engine does not exist yet" in done.err
