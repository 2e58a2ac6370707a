"""What the verifier itself needs in Vault: set up by the command, and enough for a verifier that starts sealed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import ECKey

from attestation.simulator.device import Device
from attestation.simulator.hierarchy import Hierarchy
from kbs.guest import open_token, read_attest_answer
from kbs.provision import SecretName
from tests.attestation.verifier.guest import Client
from tests.attestation.verifier.process import HOST_DATA, Site, verifier
from tests.attestation.verifier.provisioner import Provisioner, provisioning
from tests.attestation.verifier.test_refusals import Guest
from tests.attestation.verifier.tokens import Issuer
from tests.cli.vault_setup.conftest import Setup, everything, operator
from tests.cli.vault_setup.test_refusals import LOOKING, NEEDED, refused
from tests.support.openbao import OpenBao
from tests.support.paths import ROOT
from tests.support.ports import free_port
from tests.support.until import until

PROVISIONER = ECKey.generate_key("P-256")
NEEDS = [SecretName.VAULT_ROLE_ID, SecretName.VAULT_SECRET_ID]


# As docs/verifier.md has it, for other names.
NEEDED_TOO = """
path "sys/mounts/transit" { capabilities = ["update"] }
path "transit/keys/morphisms-verifier" { capabilities = ["read", "update"] }
path "sys/policies/acl/morphisms-verifier" { capabilities = ["read", "update"] }
path "sys/auth/approle" { capabilities = ["update", "sudo"] }
path "auth/approle/role/morphisms-verifier" { capabilities = ["create", "read", "update"] }
"""


@pytest.fixture
def key(site: Site, request: pytest.FixtureRequest) -> str:
    """A transit key that this test alone has, of a verifier that holds nothing in files."""
    name = re.sub(r"\W", "-", request.node.name)[:60]
    site.settings["vault"]["login"] = {"provisioned": {"mount": f"approle-{name}"[:60]}}
    site.settings["signing"] = {"transit": {"mount": f"transit-{name}"[:60], "key": "verifier"}}
    site.settings["provisioning"] = provisioning(PROVISIONER, needs=NEEDS)
    return str(name)


def role_of(site: Site, name: str) -> str:
    return f"auth/{site.settings['vault']['login']['provisioned']['mount']}/role/{name}"


def test_one_command_sets_up_all_that_a_sealed_verifier_needs(
    setup: Setup, site: Site, mount: str, key: str, bao: OpenBao, hierarchy: Hierarchy, issuer: Issuer
) -> None:
    dry = setup("--verifier-role", key, "--dry-run")
    assert dry.code == 1
    assert "+     jwt_validation_pubkeys: key <the new transit key's>" in dry.out
    assert f"+ {role_of(site, key)} (new)" in dry.out
    rules = NEEDED.format(mount=mount) + LOOKING + NEEDED_TOO
    for line in filter(None, NEEDED_TOO.splitlines()):
        assert line in (ROOT / "docs" / "verifier.md").read_text()
    for documented, used in (
        ("keys/morphisms-verifier", "keys/verifier"),
        ("morphisms-verifier", key),
        ('"transit/', f'"{site.settings["signing"]["transit"]["mount"]}/'),
        ("mounts/transit", f"mounts/{site.settings['signing']['transit']['mount']}"),
        ("auth/approle", role_of(site, key).rpartition("/role/")[0]),
    ):
        rules = rules.replace(documented, used)
    done = setup("--verifier-role", key, token=operator(bao, f"op-{key}", rules))
    assert (done.code, "made 9 changes" in done.out) == (0, True), done
    assert setup("--verifier-role", key).out == "nothing to change\n"

    path = role_of(site, key)
    role_id = bao.done("GET", f"{path}/role-id")["data"]["role_id"]
    secret_id = bao.done("POST", f"{path}/secret-id", {})["data"]["secret_id"]
    with verifier(site) as process:
        provisioner = Provisioner(process.port, PROVISIONER)
        provisioner.provision({SecretName.VAULT_ROLE_ID: role_id, SecretName.VAULT_SECRET_ID: secret_id})
        until(lambda: provisioner.call("GET", "/readyz").status == 200)
        # Its certificate stays self-signed, because no CA was provisioned: it is its own anchor.
        pem = site.folder / "shown.crt"
        pem.write_bytes(provisioner.pem)
        guest = Guest(Client(process.port, pem), Device(hierarchy, host_data=HOST_DATA), issuer.token())
        answer = guest.client.token(read_attest_answer(guest.attest().body))
        token = open_token(answer.body, guest.key, guest.nonce).token
    assert bao.call("GET", "secret/data/knative/prod/shop/payments/db", token=token)[0] == 200


def test_the_verifiers_policy_is_for_its_own_requests_alone(
    setup: Setup, site: Site, mount: str, key: str, bao: OpenBao
) -> None:
    setup("--verifier-role", key)
    path, name = role_of(site, key), site.settings["signing"]["transit"]["mount"]
    ids = bao.done("GET", f"{path}/role-id")["data"] | bao.done("POST", f"{path}/secret-id", {})["data"]
    login = {each: ids[each] for each in ("role_id", "secret_id")}
    token = bao.done("POST", f"{path.rpartition('/role/')[0]}/login", login)["auth"]["client_token"]
    for method, where, expected in (
        ("GET", f"{name}/keys/verifier", 200),
        ("POST", f"{name}/keys/verifier/rotate", 403),
        ("POST", f"{name}/keys/other", 403),
        ("GET", "secret/data/knative/prod/shop/payments/db", 403),
        ("GET", "sys/auth", 403),
        ("POST", f"{path}/secret-id", 403),
    ):
        assert bao.call(method, where, {} if method == "POST" else None, token)[0] == expected, where


def test_a_key_that_is_another_ones_or_can_leave_vault_is_told(
    setup: Setup, site: Site, mount: str, key: str, bao: OpenBao
) -> None:
    name = site.settings["signing"]["transit"]["mount"]
    bao.done("POST", f"sys/mounts/{name}", {"type": "transit"})
    bao.done("POST", f"{name}/keys/verifier", {"type": "rsa-2048"})
    held = everything(bao)
    refused(setup("--verifier-role", key), "verifier is of type rsa-2048, required ecdsa-p256")
    assert everything(bao) == held
    bao.done("POST", f"{name}/keys/weak", {"type": "ecdsa-p256", "exportable": True})
    site.settings["signing"]["transit"]["key"] = "weak"
    assert "keys/weak: exportable is on, so the key can leave Vault" in setup("--verifier-role", key).err


def test_vault_follows_a_generated_key_through_a_restart(
    setup: Setup, site: Site, mount: str, bao: OpenBao, hierarchy: Hierarchy, issuer: Issuer, tmp_path: Path
) -> None:
    """Vault fetches the keys of the one replica, and again when it meets a key that it does not know."""
    site.settings["signing"] = {"generated": True}
    site.port = free_port()
    device = Device(hierarchy, host_data=HOST_DATA)
    url = f"https://127.0.0.1:{site.port}/.well-known/jwks.json"
    for run in range(2):
        with verifier(site) as process:
            if not run:
                done = setup("--jwks-url", url, "--jwks-ca", str(site.folder / "ca.crt"))
                assert done.code == 0, done
            guest = Guest(process.client(), device, issuer.token())
            answer: Any = guest.client.token(read_attest_answer(guest.attest().body))
            assert open_token(answer.body, guest.key, guest.nonce).token, run
            guest.client.close()
