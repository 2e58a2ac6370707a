"""Keys in files: refused in production, unless an exception with a reason and an end names them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import ECKey

from attestation.simulator.hierarchy import Hierarchy
from attestation.verifier.configuration import load_configuration
from attestation.verifier.key_custody import check_key_custody
from kbs.provision import SecretName
from server.yaml.strict import ConfigurationError
from tests.attestation.verifier.own_login import write_secret
from tests.attestation.verifier.process import Site, exemption, make_site, start_command, verifier
from tests.attestation.verifier.provisioner import provisioning
from tests.attestation.verifier.tokens import Issuer
from tests.support.paths import ROOT


@pytest.fixture
def site(tmp_path: Path, hierarchy: Hierarchy, issuer: Issuer) -> Site:
    """A verifier for production; its Vault is not there."""
    made = make_site(tmp_path, hierarchy, issuer, "https://127.0.0.1:1")
    made.settings["mode"] = "production"
    del made.settings["certificates"]["simulatedRoot"]
    return made


def signing_key(_site: Site) -> str:
    return "signing.keys: "


def secret_id(site: Site) -> str:
    files = {name: str(write_secret(site.folder / name, "of a test")) for name in ("roleId", "secretId")}
    site.settings["vault"]["login"] = {"appRole": files}
    site.settings["signing"] = {"transit": {"key": "verifier"}}
    return "vault.login.appRole.secretId: "


def token(site: Site) -> str:
    site.settings["vault"]["login"] = {"tokenFile": str(write_secret(site.folder / "token", "of a test"))}
    site.settings["signing"] = {"transit": {"key": "verifier"}}
    return "vault.login.tokenFile: "


@pytest.mark.parametrize("key", [signing_key, secret_id, token])
@pytest.mark.parametrize(
    ("exceptions", "problem"),
    [
        ([], "a key in a file is every workload; not with mode: production without exceptions: [{id: key-files"),
        ([exemption(-1)], "exceptions: key-files expired on "),
        ([exemption(400)], "exceptions: key-files expires in more than 366 days"),
    ],
)
def test_production_does_not_start(
    site: Site, key: Callable[[Site], str], exceptions: list[dict[str, str]], problem: str
) -> None:
    where = key(site)
    site.settings["exceptions"] = exceptions
    (told,) = problems(site)
    assert told.startswith(where)
    assert problem in told


def test_a_start_with_a_key_in_a_file_ends_with_the_problem(site: Site) -> None:
    before = datetime.now(UTC).date()
    done = subprocess.run(start_command(site), capture_output=True, cwd=ROOT, timeout=300)
    assert done.returncode == 2
    (line,) = [json.loads(each) for each in done.stderr.splitlines() if b"start_failed" in each]
    assert line["problems"] in (problems(site, before), problems(site))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"id": "key-file"}, "exceptions"),
        ({"reason": " "}, "exceptions"),
        ({"expires": "soon"}, "exceptions"),
        ({"expires": None}, "exceptions"),
        ({"more": "1"}, "unknown key more"),
    ],
)
def test_an_exception_is_whole_or_refused(site: Site, change: dict[str, Any], problem: str) -> None:
    site.settings["exceptions"] = [exemption() | change]
    assert any(problem in each for each in problems(site))


@pytest.mark.parametrize("signing", [{"transit": {"key": "verifier"}}, {"provisioned": True}, {"generated": True}])
def test_a_verifier_without_key_files_needs_no_exception(site: Site, signing: dict[str, Any]) -> None:
    """Vault on the loopback of its guest needs no TLS either: what passes there stays in the guest's memory."""
    needs = [SecretName.VAULT_ROLE_ID, SecretName.VAULT_SECRET_ID]
    if "provisioned" in signing:
        needs.append(SecretName.SIGNING_KEY)
    site.settings["vault"] = {"url": "http://127.0.0.1:1", "login": {"provisioned": {}}}
    site.settings["signing"] = signing
    site.settings["provisioning"] = provisioning(ECKey.generate_key("P-256"), needs=needs)
    check_key_custody(load_configuration(site.write()), datetime.now(UTC).date())


@pytest.mark.parametrize("url", ["http://localhost:1", "http://vault.example:8200", "http://10.0.0.1:8200"])
def test_in_production_vault_elsewhere_needs_tls(site: Site, url: str) -> None:
    site.settings["vault"]["url"] = url
    with pytest.raises(ConfigurationError, match=r"vault\.url: not HTTPS"):
        load_configuration(site.write())


def test_with_an_exception_it_starts_and_says_so(site: Site) -> None:
    site.settings["exceptions"] = [exemption(30)]
    with verifier(site) as running:
        (line,) = running.events("exception")
    assert (line["id"], line["reason"], line["keys"]) == ("key-files", "a test", ["signing.keys"])


def test_an_exception_counts_on_its_last_day(site: Site) -> None:
    site.settings["exceptions"] = [exemption()]
    last = date.fromisoformat(site.settings["exceptions"][0]["expires"])
    check_key_custody(load_configuration(site.write()), last)
    assert problems(site, last + timedelta(days=1))


def problems(site: Site, today: date | None = None) -> list[str]:
    """What a start in this process finds."""
    with pytest.raises(ConfigurationError) as error:
        check_key_custody(load_configuration(site.write()), today or datetime.now(UTC).date())
    return list(error.value.problems)
