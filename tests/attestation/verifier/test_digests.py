"""What changes the digests of configuration and policies, and what does not."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import pytest
import yaml
from pydantic import BaseModel

from attestation.simulator.hierarchy import Hierarchy
from attestation.verifier.configuration import VerifierConfiguration, load_configuration
from attestation.verifier.digests import NAMED, PINNED, configuration_digest, policies_digest
from attestation.verifier.pinned_files import PinnedFiles
from attestation.verifier.policies.load import PolicyReader, load_policies
from tests.attestation.verifier.process import GUEST, HOST_DATA, Site, make_site, policy
from tests.attestation.verifier.tokens import Issuer
from tests.support.certificates import make_pair


@pytest.fixture
def site(tmp_path: Path, hierarchy: Hierarchy, issuer: Issuer) -> Site:
    site = make_site(tmp_path, hierarchy, issuer, "https://vault.example:8200")
    (tmp_path / "vault.crt").write_bytes(make_pair()[0])
    site.settings["vault"]["ca"] = "vault.crt"
    site.settings["attest"] = {"sources": [{"source": "sev-guest", "address": "/dev/sev-guest"}]}
    site.settings["exceptions"] = [{"id": "key-files", "reason": "a test", "expires": "2027-03-31"}]
    return site


def digest(site: Site, path: Path | None = None) -> bytes:
    return configuration_digest(load_configuration(path or site.write()), Path.read_bytes)


def test_layout_order_comments_and_written_defaults_change_nothing(site: Site) -> None:
    before = digest(site)
    path = site.folder / "verifier.yaml"
    settings = {name: site.settings[name] for name in reversed(site.settings)}
    settings["vault"] = {"timeoutSeconds": 5, "issuer": "morphisms-verifier", **settings["vault"]}
    path.write_text("# a comment\n" + yaml.safe_dump(settings, sort_keys=False, default_flow_style=True))
    assert digest(site, path) == before


def test_the_folder_that_it_lies_in_changes_nothing(site: Site, tmp_path: Path) -> None:
    """So a command computes it on another machine, from the files that a ConfigMap is made of."""
    before = digest(site)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("verifier.yaml", "vault.crt", "prod.jwks"):
        (elsewhere / name).write_bytes((site.folder / name).read_bytes())
    assert digest(site, elsewhere / "verifier.yaml") == before


CHANGES: dict[str, tuple[tuple[Any, ...], Any]] = {
    "the mode": (("mode",), None),
    "another Vault": (("vault", "url"), "https://vault.attacker.example"),
    "another issuer of logins": (("vault", "issuer"), "someone"),
    "another cluster's issuer": (("clusters", 0, "issuer"), "https://attacker.example"),
    "a cluster more": (("clusters",), [{"name": "prod", "issuer": "x", "jwks": {"file": "prod.jwks"}}] * 1),
    "no simulated root": (("certificates", "simulatedRoot"), None),
    "another key service": (("certificates", "keyService"), "https://kds.attacker.example"),
    "another policy source": (("policies",), "other-policies"),
    "another signing key": (("signing", "keys"), ["other.pem"]),
    "another evidence source": (("attest", "sources", 0, "address"), "/dev/other"),
    "a longer exception": (("exceptions", 0, "expires"), "2027-04-30"),
    "another pace": (("perSource",), {"burst": 5}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_a_host_may_swap_changes_it(site: Site, change: str) -> None:
    before = digest(site)
    keys, value = CHANGES[change]
    site.settings = copy.deepcopy(site.settings)
    section: Any = site.settings
    for key in keys[:-1]:
        section = section[key]
    if value is None:
        section.pop(keys[-1])
        if change == "the mode":
            # Production: without what it refuses.
            site.settings["certificates"].pop("simulatedRoot")
            other = digest(site)
            site.settings["mode"] = "development"
            assert other != digest(site) != before
            return
    else:
        section[keys[-1]] = value
    assert digest(site) != before


@pytest.mark.parametrize("name", ["vault.crt", "prod.jwks"])
def test_the_content_of_a_trusted_file_counts(site: Site, issuer: Issuer, name: str) -> None:
    before = digest(site)
    content = (site.folder / name).read_bytes()
    (site.folder / name).write_bytes(make_pair()[0] if name == "vault.crt" else content + b"\n")
    assert digest(site) != before
    (site.folder / name).write_bytes(content)
    assert digest(site) == before


def test_the_content_of_a_secret_does_not_count(site: Site) -> None:
    """Else the digest would tell whether a guess at a secret is right."""
    before = digest(site)
    (site.folder / "signing.pem").chmod(0o600)
    (site.folder / "signing.pem").write_text("another")
    assert digest(site) == before


def test_every_file_of_the_configuration_is_pinned_or_named() -> None:
    """A new key with a path has to be put on one of the two lists."""
    found: set[str] = set()
    seen: set[type] = set()

    def visit(kind: Any, name: str) -> None:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            if kind not in seen:
                seen.add(kind)
                for key, each in kind.model_fields.items():
                    visit(each.annotation, key)
        elif kind is Path:
            found.add(name)
        elif get_origin(kind) is Annotated:
            visit(get_args(kind)[0], name)
        else:
            for each in get_args(kind):
                visit(each, name)

    visit(VerifierConfiguration, "")
    assert found == PINNED | NAMED
    assert not PINNED & NAMED


def test_the_digest_is_of_the_content_that_was_used(site: Site) -> None:
    """A host changes the file after it was read, or flips it back before the next report."""
    configuration, pinned = load_configuration(site.write()), PinnedFiles()
    path = site.folder / "vault.crt"
    honest = path.read_bytes()
    before = pinned.configuration_digest(configuration)
    path.write_bytes(make_pair()[0])
    assert pinned.configuration_digest(configuration) == before, "nothing uses the new content yet"
    used = pinned.read(path)
    path.write_bytes(honest)
    assert used != honest
    assert pinned.configuration_digest(configuration) != before
    with pinned.copy(path) as copied:
        assert copied.read_bytes() == honest
    assert pinned.configuration_digest(configuration) == before


def policies_of(site: Site) -> bytes:
    return policies_digest(load_policies(site.folder / "policies", site.folder / "guests", {"prod": True}).value)


def test_policies_count_by_content_in_any_order_and_place(site: Site) -> None:
    other = "b" * 64
    site.write_policy("payments", policy(hostData=[HOST_DATA.hex(), other]))
    site.write_policy("neighbour", policy("neighbour"))
    before = policies_of(site)
    site.write_policy("payments", policy(hostData=[other, HOST_DATA.hex()]))
    (site.folder / "guests" / "guests.yaml").unlink()
    (site.folder / "guests" / "more.yaml").write_text(yaml.safe_dump({"simulated": dict(reversed(GUEST.items()))}))
    assert policies_of(site) == before
    document = {
        "policies": {f"prod/shop/{name}": policy(name) for name in ("payments", "neighbour")},
        "guests": {"simulated": GUEST, "unused": GUEST},
    }
    document["policies"]["prod/shop/payments"]["hostData"] = [HOST_DATA.hex(), other]
    assert policies_digest(PolicyReader({"prod": True}).document(document, "vault").value) == before


@pytest.mark.parametrize("change", ["a workload", "HOST_DATA", "the guest", "a role", "none left"])
def test_each_policy_and_guest_counts(site: Site, change: str) -> None:
    site.write_policy("payments", policy())
    before = policies_of(site)
    if change == "a workload":
        site.write_policy("neighbour", policy("neighbour", hostData=["b" * 64]))
    elif change == "HOST_DATA":
        site.write_policy("payments", policy(hostData=["b" * 64]))
    elif change == "the guest":
        site.write_guests({"simulated": GUEST | {"vmpl": 1}})
    elif change == "a role":
        site.write_policy("payments", policy(vault={"mount": "jwt-prod", "role": "admin"}))
    else:
        site.policy_path("payments").unlink()
    assert policies_of(site) != before
