"""Image configurations from real registries: with passwords, with a token server, with credential helpers."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from cli.main import main
from tests.cli.registry.conftest import Home
from tests.cli.registry.images import CONFIG, configuration, document, index, manifest, platform
from tests.cli.registry.real import Registry
from tests.cli.registry.token_server import BASIC, REFRESH_TOKEN, TokenServer
from tests.cli.registry.web import Server

AUTH = BASIC.removeprefix("Basic ")
# Kubernetes expands $(HOME) in a command, and nothing in an image's entrypoint.
LINES = 'command: ["/app", "--home=$$(HOME)"]\nargs: ["serve"]\n'
Said = pytest.CaptureFixture[str]


def pushed(registry: Registry, repository: str = "team/app") -> str:
    config = configuration()
    return registry.push(repository, "v1", manifest(config), config)


def trusting(home: Home, registry: Registry, pair: Path, **more: object) -> None:
    home.registries(registries={registry.address: {"ca": str(pair / "ca.crt"), **more}})


def test_the_lines_of_a_public_image(home: Home, open_registry: Registry, capsys: Said) -> None:
    assert main(["entrypoint", pushed(open_registry)]) == 0
    said = capsys.readouterr()
    assert said.out == LINES
    assert f"{open_registry.address}: linux/amd64, manifest sha256:" in said.err


def test_the_lines_as_json(home: Home, open_registry: Registry, capsys: Said) -> None:
    image = pushed(open_registry)
    assert main(["entrypoint", image, "-o", "json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer.pop("source").startswith(open_registry.address)
    assert answer == {"image": image, "command": ["/app", "--home=$$(HOME)"], "args": ["serve"]}


def test_an_image_by_tag_is_refused_with_the_digest_that_the_tag_stands_for(
    home: Home, open_registry: Registry, capsys: Said
) -> None:
    pinned = pushed(open_registry)
    repository, _, digest = pinned.partition("@")
    assert main(["entrypoint", f"{repository}:v1"]) == 1
    said = capsys.readouterr()
    assert f"write {repository}:v1@{digest}, for which the tag v1 stands now" in said.err
    assert said.out == ""
    assert main(["entrypoint", f"{repository}:none"]) == 1
    assert f"write {repository}:none@sha256:… (not looked up: {open_registry.address}: has no such image)" in (
        capsys.readouterr().err
    )


def test_a_digest_that_the_registry_has_not_is_unusable(home: Home, open_registry: Registry, capsys: Said) -> None:
    repository = pushed(open_registry).partition("@")[0]
    assert main(["entrypoint", f"{repository}@sha256:{'0' * 64}"]) == 2
    assert "has no such image" in capsys.readouterr().err


def test_a_password_in_dockers_configuration(home: Home, password_registry: Registry, pair: Path, capsys: Said) -> None:
    image = pushed(password_registry)
    trusting(home, password_registry, pair)
    assert main(["entrypoint", image]) == 2
    assert "refused (401); log in with docker login" in capsys.readouterr().err
    home.docker(auths={password_registry.address: {"auth": "cmVhZGVyOmh1bnRlcjI="}})
    assert main(["entrypoint", image]) == 2
    said = capsys.readouterr()
    assert "refused (401)" in said.err
    assert "hunter2" not in said.err
    home.docker(auths={f"https://{password_registry.address}/v2/": {"auth": AUTH}})
    assert main(["entrypoint", image]) == 0
    assert capsys.readouterr().out == LINES


def test_a_registry_whose_certificate_nothing_trusts_gets_no_request(
    home: Home, password_registry: Registry, capsys: Said
) -> None:
    home.docker(auths={password_registry.address: {"auth": AUTH}})
    assert main(["entrypoint", pushed(password_registry)]) == 3
    assert "its certificate is not accepted" in capsys.readouterr().err


@pytest.mark.parametrize("member", ["credHelpers", "credsStore"])
def test_a_credential_helper(home: Home, password_registry: Registry, pair: Path, member: str, capsys: Said) -> None:
    trusting(home, password_registry, pair)
    answer = json.dumps({"ServerURL": "x", "Username": "reader", "Secret": "s3cret pass"})
    asked = home.folder / "asked"
    home.helper("test", f"echo \"$@\" > {asked}; cat >> {asked}; echo '{answer}'")
    helper = {"credsStore": "test"} if member == "credsStore" else {member: {password_registry.address: "test"}}
    # A stale entry must not win over the helper.
    home.docker(auths={password_registry.address: {"auth": "eDp5"}}, **helper)
    assert main(["entrypoint", pushed(password_registry)]) == 0
    assert capsys.readouterr().out == LINES
    assert asked.read_text() == f"get\n{password_registry.address}"


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("echo credentials not found in native keychain; exit 1", "refused (401)"),
        ("echo hunter2; exit 7", "docker-credential-test get: ended with 7"),
        ('echo \'{"Secret": "hunter2"}\'', "did not answer with Username and Secret"),
        ("echo '[\"hunter2\"]'", "did not answer with Username and Secret"),
        ("yes hunter2", "answered with more than 262144 bytes"),
    ],
)
def test_a_broken_credential_helper_is_explained_without_what_it_wrote(
    home: Home, password_registry: Registry, pair: Path, script: str, expected: str, capsys: Said
) -> None:
    trusting(home, password_registry, pair)
    home.helper("test", script)
    home.docker(credsStore="test")
    assert main(["entrypoint", pushed(password_registry)]) == 2
    said = capsys.readouterr().err
    assert expected in said
    assert "hunter2" not in said


@pytest.mark.parametrize("name", ["../../bin/sh", "a b", "", "-x", 7, "missing"])
def test_a_helper_that_is_none_is_not_run(
    home: Home, password_registry: Registry, pair: Path, name: object, capsys: Said
) -> None:
    trusting(home, password_registry, pair)
    home.docker(credHelpers={password_registry.address: name})
    assert main(["entrypoint", pushed(password_registry)]) == 2
    expected = {"missing": "docker-credential-missing: cannot be run", "": "refused (401)"}
    assert expected.get(str(name), "the name of a credential helper is not one") in capsys.readouterr().err


def push_with_token(registry: Registry, tokens: TokenServer, repository: str) -> str:
    pusher = Registry(registry.address, registry.tls, f"Bearer {tokens.token(repository, ['pull', 'push'])}")
    return pushed(pusher, repository)


def test_credentials_go_to_another_host_of_tokens_only_where_the_caller_lists_it(
    home: Home,
    token_registry: Registry,
    token_server: tuple[TokenServer, Server],
    pair: Path,
    capsys: Said,
) -> None:
    tokens, server = token_server
    image = push_with_token(token_registry, tokens, "private/app")
    home.docker(auths={token_registry.address: {"auth": AUTH}})
    trusting(home, token_registry, pair)
    server.asked.clear()
    assert main(["entrypoint", image]) == 2
    assert f"registries.{token_registry.address}.tokenHosts" in capsys.readouterr().err
    assert [asked.headers.get("Authorization") for asked in server.asked] == [None]
    trusting(home, token_registry, pair, tokenHosts=[server.address])
    assert main(["entrypoint", image]) == 0
    assert capsys.readouterr().out == LINES
    # Reading this repository, and no more.
    assert re.search(r"[?&]scope=repository(:|%3A)private/app(:|%3A)pull$", server.asked[-1].path)


def test_a_public_image_needs_no_credentials_although_there_are_some(
    home: Home, token_registry: Registry, token_server: tuple[TokenServer, Server], pair: Path, capsys: Said
) -> None:
    tokens, server = token_server
    image = push_with_token(token_registry, tokens, "public/app")
    home.docker(auths={token_registry.address: {"auth": AUTH}})
    trusting(home, token_registry, pair)
    server.asked.clear()
    assert main(["entrypoint", image]) == 0
    assert capsys.readouterr().out == LINES
    assert all("Authorization" not in asked.headers for asked in server.asked)


@pytest.mark.parametrize("helped", [True, False])
def test_an_identity_token_is_exchanged(
    home: Home,
    token_registry: Registry,
    token_server: tuple[TokenServer, Server],
    pair: Path,
    helped: bool,
    capsys: Said,
) -> None:
    tokens, server = token_server
    image = push_with_token(token_registry, tokens, "private/app")
    trusting(home, token_registry, pair, tokenHosts=[server.address])
    if helped:
        answer = json.dumps({"Username": "<token>", "Secret": REFRESH_TOKEN})
        home.helper("test", f"echo '{answer}'")
        home.docker(credsStore="test")
    else:
        home.docker(auths={token_registry.address: {"identitytoken": REFRESH_TOKEN}})
    assert main(["entrypoint", image]) == 0
    assert capsys.readouterr().out == LINES
    assert server.asked[-1].method == "POST"


def test_a_token_to_use_as_it_is(
    home: Home, token_registry: Registry, token_server: tuple[TokenServer, Server], pair: Path, capsys: Said
) -> None:
    tokens, server = token_server
    image = push_with_token(token_registry, tokens, "private/app")
    trusting(home, token_registry, pair)
    home.docker(auths={token_registry.address: {"registrytoken": tokens.token("private/app", ["pull"])}})
    server.asked.clear()
    assert main(["entrypoint", image]) == 0
    assert server.asked == []


@pytest.mark.parametrize("docker", [False, True])
def test_an_index_yields_the_guests_platform(home: Home, open_registry: Registry, docker: bool, capsys: Said) -> None:
    """As builders push one: no annotations, or with attestations among the manifests."""
    arm = configuration({"Entrypoint": ["/arm"]}, architecture="arm64", docker=docker)
    amd = configuration(docker=docker)
    manifests = [manifest(one, docker=docker) for one in (arm, amd)]
    attestation = manifest(configuration({}, architecture="unknown", docker=docker), docker=docker)
    open_registry.push(
        "team/multi", "attestation", attestation, configuration({}, architecture="unknown", docker=docker)
    )
    for each, config in zip(manifests, (arm, amd), strict=True):
        open_registry.push("team/multi", each.digest, each, config)
    whole = index(
        attestation.descriptor(**platform("unknown", "unknown")),
        manifests[0].descriptor(**platform("arm64", variant="v8")),
        manifests[1].descriptor(**platform("amd64")),
        docker=docker,
    )
    assert main(["entrypoint", open_registry.push("team/multi", "v1", whole)]) == 0
    said = capsys.readouterr()
    assert said.out == LINES
    assert f"manifest {manifests[1].digest}, configuration {amd.digest}" in said.err
    # The manifest of another platform by its own digest.
    assert main(["entrypoint", f"{open_registry.address}/team/multi@{manifests[0].digest}"]) == 2
    assert "the image is for linux/arm64; guests are linux/amd64" in capsys.readouterr().err


def test_a_platform_that_is_missing_is_named_with_those_that_there_are(
    home: Home, open_registry: Registry, capsys: Said
) -> None:
    arm = configuration(architecture="arm64")
    open_registry.push("team/arm", manifest(arm).digest, manifest(arm), arm)
    whole = index(
        manifest(arm).descriptor(**platform("arm64", variant="v8")),
        manifest(arm).descriptor(**platform("s390x")),
        manifest(arm).descriptor(**platform("unknown", "unknown")),
        manifest(arm).descriptor(),
    )
    assert main(["entrypoint", open_registry.push("team/arm", "v1", whole)]) == 2
    said = capsys.readouterr().err
    assert "the image is not there for linux/amd64" in said
    assert "it is for: linux/arm64/v8, linux/s390x, no platform" in said
    # Attestations run nowhere.
    assert "unknown" not in said


def test_a_platform_that_is_there_twice_is_not_guessed(home: Home, open_registry: Registry, capsys: Said) -> None:
    """Host and guest would choose by rules of their own."""
    one, other = configuration(), configuration({"Entrypoint": ["/other"]})
    for config in (one, other):
        open_registry.push("team/twice", manifest(config).digest, manifest(config), config)
    whole = index(
        manifest(one).descriptor(**platform("amd64")), manifest(other).descriptor(**platform("amd64", variant="v3"))
    )
    assert main(["entrypoint", open_registry.push("team/twice", "v1", whole)]) == 2
    said = capsys.readouterr().err
    assert "more than once" in said
    assert f"{manifest(other).digest} (linux/amd64/v3)" in said


def test_an_index_in_an_index_is_refused_as_guests_refuse_it(home: Home, open_registry: Registry, capsys: Said) -> None:
    config = configuration()
    open_registry.push("team/nested", manifest(config).digest, manifest(config), config)
    inner = index(manifest(config).descriptor(**platform("amd64")))
    open_registry.push("team/nested", inner.digest, inner)
    outer = index(inner.descriptor(**platform("amd64")))
    assert main(["entrypoint", open_registry.push("team/nested", "v1", outer)]) == 2
    assert "the index names an index" in capsys.readouterr().err


def test_what_is_no_image_is_refused(home: Home, open_registry: Registry, capsys: Said) -> None:
    chart = document({"name": "chart"}, "application/vnd.example.chart.config.v1+json")
    assert main(["entrypoint", open_registry.push("team/chart", "v1", manifest(chart), chart)]) == 2
    assert "not of a container image" in capsys.readouterr().err


def test_an_image_that_starts_nothing_is_refused(home: Home, open_registry: Registry, capsys: Said) -> None:
    config = configuration({"Env": ["A=b"]})
    assert main(["entrypoint", open_registry.push("team/none", "v1", manifest(config), config)]) == 1
    assert "names no process" in capsys.readouterr().err


def test_a_reference_without_a_host_needs_a_default(home: Home, open_registry: Registry, capsys: Said) -> None:
    digest = pushed(open_registry, "library/short").partition("@")[2]
    assert main(["entrypoint", f"short@{digest}"]) == 2
    assert "names no registry; write HOST/REPOSITORY, or name one with --default-registry HOST" in (
        capsys.readouterr().err
    )
    home.registries(default="images.test", registries={"images.test": {"host": open_registry.address}})
    assert main(["entrypoint", f"library/short@{digest}"]) == 0
    other = pushed(open_registry, "library/other").partition("@")[2]
    assert other == digest
    home.registries(
        default="images.test",
        registries={"images.test": {"host": open_registry.address, "namespace": "library"}},
    )
    for path in home.cache.iterdir():
        path.unlink()
    assert main(["entrypoint", f"short@{digest}"]) == 0
    for path in home.cache.iterdir():
        path.unlink()
    home.registries()
    words = ["--default-registry", open_registry.address]
    assert main(["entrypoint", f"library/short@{digest}", *words]) == 0


def test_a_digest_is_looked_up_once(home: Home, open_registry: Registry, capsys: Said) -> None:
    image = pushed(open_registry)
    assert main(["entrypoint", image]) == 0
    # Nothing serves here any more.
    home.registries(registries={open_registry.address: {"host": "127.0.0.1:1"}})
    assert main(["entrypoint", image]) == 0
    said = capsys.readouterr()
    assert said.out == LINES * 2
    assert "cache: linux/amd64, manifest" in said.err
    assert main(["entrypoint", image.replace("team/app@sha256:", "team/app:v1@sha256:0")[:-1]]) == 3


def test_the_cache_is_not_trusted(home: Home, open_registry: Registry, capsys: Said) -> None:
    image = pushed(open_registry)
    assert main(["entrypoint", image]) == 0
    capsys.readouterr()
    kept = sorted(home.cache.iterdir())
    assert {path.stat().st_mode & 0o777 for path in kept} == {0o600}
    assert len(kept) == 2
    evil = json.dumps({"os": "linux", "architecture": "amd64", "config": {"Entrypoint": ["/evil"]}}).encode()
    kept[0].write_bytes(evil)
    kept[1].unlink()
    (home.folder / "evil").write_bytes(evil)
    kept[1].symlink_to(home.folder / "evil")
    assert main(["entrypoint", image]) == 0
    assert capsys.readouterr().out == LINES


def test_a_cache_that_cannot_be_written_costs_requests_alone(home: Home, open_registry: Registry, capsys: Said) -> None:
    home.cache.parent.mkdir(parents=True)
    home.cache.write_text("a file in its place")
    assert main(["entrypoint", pushed(open_registry)]) == 0
    assert capsys.readouterr().out == LINES


def test_images_from_a_file_and_no_registry(home: Home, capsys: Said, tmp_path: Path) -> None:
    image = f"registry.test/app@sha256:{'a' * 64}"
    (tmp_path / "images.json").write_text(json.dumps({image: CONFIG}))
    assert main(["entrypoint", image, "--images", str(tmp_path / "images.json"), "--offline"]) == 0
    assert capsys.readouterr().out == LINES
    assert main(["entrypoint", image.replace("a" * 64, "b" * 64), "--offline"]) == 2
    assert "--offline asks no registry" in capsys.readouterr().err
