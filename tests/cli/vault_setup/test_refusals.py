"""Each way in which Vault cannot be set up is one line that says what to do, and nothing is changed."""

from __future__ import annotations

import http.server
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from tests.attestation.verifier.process import Site, policy
from tests.cli.vault_setup.conftest import Setup, everything, operator
from tests.support.certificates import write_pair
from tests.support.done import Done
from tests.support.openbao import ROOT_TOKEN, OpenBao, openbao
from tests.support.paths import ROOT

NEEDED = """
path "sys/auth" {{ capabilities = ["read"] }}
path "sys/auth/{mount}" {{ capabilities = ["update", "sudo"] }}
path "auth/{mount}/config" {{ capabilities = ["read", "update"] }}
path "auth/{mount}/role/knative" {{ capabilities = ["create", "read", "update"] }}
path "sys/policies/acl/knative-{mount}" {{ capabilities = ["read", "update"] }}
"""
LOOKING = """
path "sys/audit" { capabilities = ["read", "sudo"] }
path "sys/mounts" { capabilities = ["read"] }
"""


def refused(done: Done, text: str) -> None:
    assert (done.code, text in done.err) == (2, True), done
    assert done.err.startswith("morphisms vault setup: ")
    assert done.err.count("\n") == 1


def test_the_documented_operators_policy_is_enough(setup: Setup, mount: str, bao: OpenBao) -> None:
    page = (ROOT / "docs" / "verifier.md").read_text()
    rules = NEEDED.format(mount=mount) + LOOKING
    for line in filter(None, (NEEDED.format(mount="jwt-prod") + LOOKING).splitlines()):
        assert line in page
    token = operator(bao, "op-enough", rules)
    first = setup(token=token)
    assert (first.code, "made 4 changes" in first.out) == (0, True), first
    assert "may not look" not in first.err
    assert setup(token=token).out == "nothing to change\n"


@pytest.mark.parametrize(
    ("taken", "lacks"),
    [
        ('path "sys/auth" { capabilities = ["read"] }', "read on sys/auth"),
        (', "sudo"', "sudo on sys/auth/MOUNT"),
        ('path "auth/MOUNT/config" { capabilities = ["read", "update"] }', "update on auth/MOUNT/config"),
        ('"create", ', "create on auth/MOUNT/role/knative"),
        ('path "sys/policies/acl/knative-MOUNT" { capabilities = ["read", "update"] }', "read on sys/policies/acl/"),
    ],
    ids=["auth", "enable", "config", "role", "policy"],
)
def test_a_missing_capability_is_named_before_anything_is_written(
    setup: Setup, mount: str, bao: OpenBao, taken: str, lacks: str
) -> None:
    rules = NEEDED.format(mount=mount)
    assert taken.replace("MOUNT", mount) in rules
    token = operator(bao, f"op-{mount}", rules.replace(taken.replace("MOUNT", mount), ""))
    held = everything(bao)
    done = setup(token=token)
    refused(done, "permission denied")
    assert f"lacks {lacks.replace('MOUNT', mount)}" in done.err
    assert everything(bao) == held


def test_a_token_without_read_access_is_named(setup: Setup, mount: str, bao: OpenBao) -> None:
    done = setup(token=operator(bao, "op-blind", NEEDED.format(mount=mount)))
    assert done.code == 0
    assert "audit: the token may not look (it needs read and sudo on sys/audit)" in done.err
    assert "secret/: the token may not look (it needs read on sys/mounts)" in done.err


def test_a_missing_audit_device_is_named_with_the_command_that_adds_one(
    setup: Setup, site: Site, mount: str, tmp_path: Path
) -> None:
    """Both runs say it; with the device that it advises, as OpenBao's configuration, it says nothing."""
    for _ in range(2):
        said = setup().err
        assert "audit: no audit device is on" in said
    stanza = said[said.index('audit "file"') :].replace("/var/log/openbao/audit.log", str(tmp_path / "audit.log"))
    for single in (" options { ", " } }"):
        stanza = stanza.replace(single, single.strip().replace("{", "{\n").replace("} }", "\n}\n}"))
    (tmp_path / "audit.hcl").write_text(stanza.replace('"to-file" {', '"to-file" {\n'))
    with openbao(tmp_path, tmp_path / "audit.hcl") as audited:
        site.settings["vault"]["url"] = audited.url
        done = setup()
        assert (done.code, done.err) == (0, "")


@pytest.mark.parametrize("token", ["not-one", "a b", "s.revoked"])
def test_an_invalid_token_is_refused(setup: Setup, mount: str, token: str) -> None:
    refused(setup(token=token), "permission denied: the operator's token has expired, was revoked")


def test_the_token_comes_from_the_environment_else_from_the_file(setup: Setup, site: Site, mount: str) -> None:
    refused(setup(token=None), "no operator's token: set VAULT_TOKEN")
    (site.folder / ".vault-token").write_text(ROOT_TOKEN + "\n")
    assert setup("--dry-run", token=None).code == 1
    refused(setup(token="a\nb"), "is not a Vault token")


def test_a_sealed_and_an_unreachable_vault_are_told_apart(setup: Setup, site: Site, mount: str, tmp_path: Path) -> None:
    with openbao(tmp_path) as own:
        site.settings["vault"]["url"] = own.url
        own.done("PUT", "sys/seal")
        refused(setup(), "is sealed: `vault operator unseal`")
    refused(setup(), "cannot be reached")


class _Other(http.server.BaseHTTPRequestHandler):
    """Answers as its path's first part says, and keeps the requests."""

    answers: dict[str, tuple[int, bytes]]
    seen: list[str | None]

    def do_GET(self) -> None:
        self.seen.append(self.headers.get("X-Vault-Token"))
        status, body = self.answers["now"]
        self.send_response(status)
        if status == 307:
            self.send_header("Location", "http://127.0.0.1:1/")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.fixture
def other() -> Iterator[tuple[type[_Other], str]]:
    handler = type("Handler", (_Other,), {"answers": {}, "seen": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield handler, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    ("status", "body", "text"),
    [
        (200, b"<html>", "not as Vault or OpenBao does"),
        (200, b"[1]", "not as Vault or OpenBao does"),
        (404, b'{"errors": []}', "not as Vault or OpenBao does"),
        (307, b"", "redirects"),
        (200, json.dumps({"sealed": True, "initialized": False}).encode(), "is not initialised"),
    ],
    ids=["html", "list", "404", "redirect", "new"],
)
def test_a_server_that_is_not_vault_never_gets_the_token(
    setup: Setup, site: Site, mount: str, other: tuple[type[_Other], str], status: int, body: bytes, text: str
) -> None:
    handler, site.settings["vault"]["url"] = other
    handler.answers["now"] = (status, body)
    refused(setup(), text)
    assert handler.seen == [None]


def test_a_slow_vault_is_given_up(setup: Setup, site: Site, mount: str) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        site.settings["vault"] |= {"url": f"http://127.0.0.1:{silent.getsockname()[1]}", "timeoutSeconds": 0.2}
        refused(setup(), "does not answer within 0.2 s")


class _Forgetful(_Other):
    """Has a mount, takes every write and keeps none."""

    def do_GET(self) -> None:
        held = {"/v1/sys/seal-status": {"sealed": False}, "/v1/sys/auth": {"data": {"m/": self.mount}}}
        self.answers["now"] = (200, json.dumps(held[self.path]).encode()) if self.path in held else (404, b"{}")
        super().do_GET()

    mount: ClassVar = {"type": "jwt", "accessor": "auth_jwt_1"}

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answers["now"] = (404, b"{}") if self.path.endswith("capabilities-self") else (204, b"")
        super().do_GET()


def test_a_write_is_read_back(setup: Setup, site: Site) -> None:
    handler = type("Handler", (_Forgetful,), {"answers": {}, "seen": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        site.settings["vault"]["url"] = f"http://127.0.0.1:{server.server_port}"
        refused(setup("--mount", "m"), "Vault took auth/m/config but does not hold it: bound_issuer: ")
        server.shutdown()


def test_in_production_keys_come_by_https_only(setup: Setup, site: Site) -> None:
    del site.settings["certificates"]["simulatedRoot"]
    site.settings |= {"mode": "production", "vault": {"url": "https://127.0.0.1:1"}}
    refused(setup("--mount", "m", "--jwks-url", "http://v.example/jwks"), "--jwks-url has to begin with https://\n")


def test_vaults_certificate_needs_the_configured_ca(setup: Setup, site: Site, mount: str, bao: OpenBao) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(site.folder / "tls.crt", site.folder / "tls.key")
    (site.folder / "other").mkdir()
    write_pair(site.folder / "other")
    handler = type("Handler", (_Other,), {"answers": {"now": (200, b"<html>")}, "seen": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        site.settings["vault"] = {"url": f"https://127.0.0.1:{server.server_port}", "ca": "ca.crt"}
        refused(setup(), "not as Vault or OpenBao does")
        for settings in ({"ca": "other/ca.crt"}, {"ca": None}):
            site.settings["vault"] |= settings
            refused(setup(), "its certificate is not trusted; name the CA that signed it by --vault-ca FILE")
        site.settings["vault"]["ca"] = "prod.jwks"
        refused(setup(), "not a readable PEM file")
        server.shutdown()


def test_another_owners_mount_is_left_alone(setup: Setup, mount: str, bao: OpenBao) -> None:
    bao.done("POST", "sys/auth/taken", {"type": "userpass"})
    refused(setup("--mount", "taken"), "auth/taken is of type userpass, required jwt")


def test_two_mounts_that_would_share_a_policy_are_refused(setup: Setup, site: Site) -> None:
    site.write_policy("payments", policy(vault={"mount": "a/b", "role": "knative"}))
    other = {"account": "other", "hostData": ["cd" * 32], "vault": {"mount": "a-b", "role": "knative"}}
    site.write_policy("neighbour", policy("neighbour", **other))
    refused(setup(), "would share policy knative-a-b")


def test_a_key_in_the_verifiers_memory_is_fetched_from_it(setup: Setup, site: Site, mount: str) -> None:
    site.settings["signing"] = {"generated": True}
    refused(setup(), "--jwks-url is required with signing.generated and signing.provisioned")


def test_in_production_the_operators_token_goes_over_tls(setup: Setup, site: Site) -> None:
    del site.settings["certificates"]["simulatedRoot"]
    site.settings |= {"mode": "production", "vault": {"url": "https://127.0.0.1:1"}}
    refused(setup("--mount", "m", "--vault-url", "http://vault.example:8200"), "--vault-url has to begin with https://")


def test_a_problem_of_the_configuration_names_the_file(setup: Setup, site: Site, mount: str) -> None:
    (site.folder / "signing.pem").chmod(0o644)
    refused(setup(), "signing.pem: has mode 0644, required 0400")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--role", "app"), "go with --mount"),
        (("--vault-ca", "x"), "--vault-ca goes with --vault-url"),
        (("--jwks-ca", "x"), "--jwks-ca goes with --jwks-url"),
        (("--jwks-url", "ftp://x"), "--jwks-url has to begin with https://"),
        (("--jwks-url", "http://127.0.0.1:1/jwks"), "Vault cannot fetch the JWKS"),
        (("--mount", "m", "--namespace", "nowhere"), "namespace nowhere does not exist"),
    ],
    ids=["role", "vault-ca", "ca", "scheme", "jwks", "namespace"],
)
def test_options_that_contradict_each_other_are_refused(
    setup: Setup, mount: str, options: tuple[str, ...], text: str
) -> None:
    done = setup(*options)
    assert (done.code, text in done.err) == (2, True), done


@pytest.mark.parametrize("option", ["--mount", "--role", "--namespace", "--kv-mount", "--kv-prefix"])
@pytest.mark.parametrize("value", ["a*", "a/../b", "{{x}}", 'a" {', "/a", "a/", "", "a\n"])
def test_an_option_with_a_wildcard_or_a_template_is_refused(setup: Setup, option: str, value: str) -> None:
    with pytest.raises(SystemExit) as caught:
        setup(option, value)
    assert caught.value.code == 2
