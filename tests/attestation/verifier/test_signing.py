"""Signing keys: private to the verifier, listed while they change, replaced without a restart."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from attestation.simulator.device import Device
from attestation.simulator.hierarchy import Hierarchy
from attestation.verifier.handlers import JWKS_PATH
from attestation.verifier.vault.signing import load_signing_keys
from kbs.guest import read_attest_answer
from server.yaml.strict import ConfigurationError
from tests.attestation.verifier.process import make_site, policy, verifier, write_signing_key
from tests.attestation.verifier.test_refusals import Guest
from tests.attestation.verifier.tokens import Issuer
from tests.support.openbao import OpenBao
from tests.support.until import until


def problem(*paths: Path) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load_signing_keys(paths)
    return str(caught.value)


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o440, 0o404, 0o500])
def test_a_key_of_another_mode_is_refused_with_the_remedy(tmp_path: Path, mode: int) -> None:
    write_signing_key(tmp_path / "key.pem")
    (tmp_path / "key.pem").chmod(mode)
    assert problem(tmp_path / "key.pem").endswith(f"has mode {mode:04o}, required 0400; chmod 400 it")


def test_other_keys_are_refused(tmp_path: Path) -> None:
    keys = {"rsa": rsa.generate_private_key(65537, 2048), "p384": ec.generate_private_key(ec.SECP384R1())}
    for name, key in keys.items():
        path = tmp_path / name
        path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        path.chmod(0o400)
        assert str(path) in problem(path)
    public = tmp_path / "public.pem"
    public.write_text(write_signing_key(tmp_path / "key.pem"))
    public.chmod(0o400)
    assert "the first one signs" in problem(public)
    assert "listed twice" in problem(tmp_path / "key.pem", public)
    assert "cannot be read" in problem(tmp_path / "none")
    (tmp_path / "junk").write_text("junk")
    (tmp_path / "junk").chmod(0o400)
    assert "not an unencrypted PEM key" in problem(tmp_path / "junk")


def test_nothing_private_is_listed(tmp_path: Path) -> None:
    write_signing_key(tmp_path / "key.pem")
    write_signing_key(tmp_path / "next.pem")
    loaded = load_signing_keys([tmp_path / "key.pem", tmp_path / "next.pem"]).value
    keys = json.loads(loaded.jwks)["keys"]
    assert [set(key) for key in keys] == [{"kty", "crv", "x", "y", "use", "alg", "kid"}] * 2
    assert keys[0]["kid"] == loaded.signer_id
    assert "PRIVATE" not in repr(loaded)


def test_a_rotation_loses_no_login(
    tmp_path: Path, hierarchy: Hierarchy, device: Device, issuer: Issuer, bao: OpenBao
) -> None:
    """Two listed, Vault told of both, then the other one signs."""
    site = make_site(tmp_path, hierarchy, issuer, bao.url)
    site.settings["vault"]["issuer"] = "rotating"
    site.write_policy("payments", policy(vault={"mount": "jwt-rotating", "role": "knative"}))
    old, new = (tmp_path / "signing.pem", tmp_path / "next.pem")
    public = [*site.public_keys, write_signing_key(new)]
    site.settings["signing"]["keys"] = ["signing.pem", "next.pem"]
    if "jwt-rotating/" not in bao.done("GET", "sys/auth")["data"]:
        bao.done("POST", "sys/auth/jwt-rotating", {"type": "jwt"})
    config = {"jwt_validation_pubkeys": public, "bound_issuer": "rotating", "jwt_supported_algs": ["ES256"]}
    bao.done("POST", "auth/jwt-rotating/config", config)
    role = {"role_type": "jwt", "user_claim": "sub", "bound_audiences": ["vault"], "clock_skew_leeway": 5}
    bao.done("POST", "auth/jwt-rotating/role/knative", role)
    with verifier(site) as one:
        first = one.client()
        listed = json.loads(first.call("GET", JWKS_PATH).body)["keys"]
        assert len(listed) == 2

        def attested() -> str:
            return read_attest_answer(Guest(first, device, issuer.token()).attest().body)

        assert first.token(attested()).status == 200
        for path, content in ((old, new.read_bytes()), (new, old.read_bytes())):
            path.chmod(0o600)
            path.write_bytes(content)
            path.chmod(0o400)
        until(lambda: json.loads(first.call("GET", JWKS_PATH).body)["keys"][0]["kid"] == listed[1]["kid"])
        assert first.token(attested()).status == 200
        assert [line["reason"] for line in one.events("login")] == ["believed", "believed"]
