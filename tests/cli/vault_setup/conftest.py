"""One OpenBao, and a verifier's folder for each test; each test has a jwt mount of its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from attestation.simulator.hierarchy import Hierarchy, open_hierarchy
from cli.main import main
from tests.attestation.verifier.process import Site, policy
from tests.attestation.verifier.tokens import Issuer
from tests.support.done import Done
from tests.support.openbao import ROOT_TOKEN, OpenBao, openbao


@pytest.fixture(scope="session")
def bao(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenBao]:
    with openbao(tmp_path_factory.mktemp("openbao")) as server:
        for service in ("payments", "neighbour"):
            path = f"secret/data/knative/prod/shop/{service}/db"
            server.done("POST", path, {"data": {"password": f"of {service}"}})
        yield server


@pytest.fixture(scope="session")
def hierarchy(tmp_path_factory: pytest.TempPathFactory) -> Hierarchy:
    return open_hierarchy(tmp_path_factory.mktemp("simulated"))


@pytest.fixture(scope="session")
def issuer() -> Issuer:
    return Issuer()


Setup = Callable[..., Done]


@pytest.fixture
def site(tmp_path: Path, bao: OpenBao, hierarchy: Hierarchy, issuer: Issuer) -> Site:
    """A verifier's folder with the policies that `mount` is in."""
    made = Site(tmp_path, hierarchy, bao.url)
    issuer.write_jwks(tmp_path / "prod.jwks")
    return made


@pytest.fixture
def mount(site: Site, request: pytest.FixtureRequest) -> str:
    """A mount's name that no other test has, as an appraisal policy of the site says it."""
    name = "jwt-" + "".join(c if c.isalnum() else "-" for c in request.node.name)[:80].strip("-").lower()
    site.write_policy("payments", policy(vault={"mount": name, "role": "knative"}))
    return name


@pytest.fixture
def setup(site: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Setup:
    """`morphisms vault setup` on the site, as an operator with `token`."""
    monkeypatch.setenv("HOME", str(site.folder))
    for name in ("VAULT_ADDR", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")  # must count for nothing
    monkeypatch.setenv("NO_PROXY", "")

    def run(*options: str, token: str | None = ROOT_TOKEN) -> Done:
        if token is None:
            monkeypatch.delenv("VAULT_TOKEN", raising=False)
        else:
            monkeypatch.setenv("VAULT_TOKEN", token)
        code = main(["vault", "setup", "--config", str(site.write()), *options])
        captured = capsys.readouterr()
        for secret in (ROOT_TOKEN, "PRIVATE KEY", *([token] if token else [])):
            assert secret not in captured.out + captured.err
        return Done(code, captured.out, captured.err)

    return run


def everything(bao: OpenBao) -> str:
    """What Vault holds of mounts, configs, roles and policies, to see whether anything changed."""
    held: dict[str, Any] = {}
    mounts = bao.done("GET", "sys/auth")["data"]
    held["mounts"] = {name: mount["accessor"] for name, mount in mounts.items()}
    for name, each in mounts.items():
        if each["type"] == "jwt":
            held[name] = (bao.call("GET", f"auth/{name}config")[1] or {}).get("data")
            roles = bao.call("GET", f"auth/{name}role?list=true")[1]
            for role in (roles or {}).get("data", {}).get("keys", []):
                held[f"{name}{role}"] = bao.done("GET", f"auth/{name}role/{role}")["data"]
    for name in bao.done("GET", "sys/policies/acl?list=true")["data"]["keys"]:
        held[f"policy {name}"] = bao.done("GET", f"sys/policies/acl/{name}")["data"]
    return json.dumps(held, sort_keys=True)


def operator(bao: OpenBao, name: str, rules: str) -> str:
    """A token that may do what the rules say and the default policy."""
    bao.done("PUT", f"sys/policies/acl/{name}", {"policy": rules})
    return str(bao.done("POST", "auth/token/create", {"policies": [name]})["auth"]["client_token"])
