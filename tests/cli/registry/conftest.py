"""A home of the test's own, and registries that a module's tests share."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.registry.real import Registry, registry
from tests.cli.registry.token_server import BASIC, ISSUER, SERVICE, TokenServer
from tests.cli.registry.web import Server, serving
from tests.support.certificates import write_pair

# bcrypt of "s3cret pass".
_HTPASSWD = "reader:$2b$04$ADKpTmlSvkQMavpbio7h0eGzPsJ10s1AXhKAhpHB.FdVkY9Crmj1S\n"


class Home:
    """The caller's own files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cache = folder / "cache" / "morphisms" / "registry"

    def docker(self, **members: Any) -> None:
        """Write docker's configuration."""
        (self.folder / "docker").mkdir(exist_ok=True)
        (self.folder / "docker" / "config.json").write_text(json.dumps(members))

    def registries(self, **members: Any) -> None:
        """Write registries.yaml where it is found without an option."""
        path = self.folder / "config" / "morphisms" / "registries.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"version": 1, **members}))

    def helper(self, name: str, script: str) -> None:
        """A credential helper on PATH."""
        path = self.folder / "bin" / f"docker-credential-{name}"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    return Home(tmp_path)


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test's CA, which is the servers' certificate too."""
    folder = tmp_path_factory.mktemp("pair")
    write_pair(folder)
    return folder


@pytest.fixture(scope="module")
def open_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """Without TLS, for everybody."""
    with registry(tmp_path_factory.mktemp("open")) as started:
        yield started


@pytest.fixture(scope="module")
def password_registry(tmp_path_factory: pytest.TempPathFactory, pair: Path) -> Iterator[Registry]:
    """With TLS, for the user `reader` with the password `s3cret pass`."""
    folder = tmp_path_factory.mktemp("password")
    (folder / "htpasswd").write_text(_HTPASSWD)
    auth = {"htpasswd": {"realm": "the test", "path": str(folder / "htpasswd")}}
    with registry(folder, tls=pair, auth=auth, authorization=BASIC) as started:
        yield started


@pytest.fixture(scope="module")
def token_server(pair: Path) -> Iterator[tuple[TokenServer, Server]]:
    """With TLS, for the user `reader`; everybody may read below `public/`."""
    tokens = TokenServer(pair)
    with serving(tokens.answer, pair) as server:
        yield tokens, server


@pytest.fixture(scope="module")
def token_registry(
    tmp_path_factory: pytest.TempPathFactory, pair: Path, token_server: tuple[TokenServer, Server]
) -> Iterator[Registry]:
    """With TLS, for who has a token of the token server."""
    realm = f"https://{token_server[1].address}/token"
    bundle = str(pair / "tls.crt")
    auth = {"token": {"realm": realm, "service": SERVICE, "issuer": ISSUER, "rootcertbundle": bundle}}
    with registry(tmp_path_factory.mktemp("token"), tls=pair, auth=auth) as started:
        yield started
