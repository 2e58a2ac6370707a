"""Which cluster a process talks to, and as whom: a pod's service account, or a person's kubeconfig."""

from __future__ import annotations

import json
import re
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from server.kubernetes import credentials, kubeconfig
from server.kubernetes.client import Client
from server.kubernetes.connect import connect, unusable
from server.kubernetes.credentials import HOST_VARIABLE, PORT_VARIABLE, in_cluster
from server.kubernetes.errors import CredentialsError, StatusError, UnreachableError
from server.kubernetes.kubeconfig import Kubeconfig
from tests.support.certificates import write_pair
from tests.support.paths import ROOT
from tests.webhook.cluster.apiserver import NAMESPACES, ApiServer, status


@pytest.fixture
async def secure(tmp_path: Path) -> AsyncIterator[ApiServer]:
    """A server over TLS that takes any client certificate of the CA in `ca.crt`."""
    write_pair(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(tmp_path / "ca.crt"))
    context.load_cert_chain(tmp_path / "tls.crt", tmp_path / "tls.key")
    context.verify_mode = ssl.CERT_OPTIONAL
    server = ApiServer()
    await server.start(context)
    yield server
    await server.stop()


@pytest.fixture
def account(tmp_path: Path, secure: ApiServer, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pod's folder of credentials for `secure`, in place of the real one."""
    host, _, port = secure.url.removeprefix("https://").rpartition(":")
    monkeypatch.setattr(credentials, "SERVICE_ACCOUNT", tmp_path)
    monkeypatch.setenv(HOST_VARIABLE, host)
    monkeypatch.setenv(PORT_VARIABLE, port)
    (tmp_path / "token").write_text("first\n")
    return tmp_path


def write_kubeconfig(folder: Path, server: str, user: dict[str, Any], **cluster: object) -> str:
    path = folder / "kubeconfig"
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": server, **cluster}}],
        "users": [{"name": "u", "user": user}],
    }
    path.write_text(json.dumps(document))
    return str(path)


async def authorization(server: ApiServer, client: Client) -> str | None:
    """The header that a request carries."""
    assert (await client.get(NAMESPACES))["items"] == []
    return server.requests[-1][2].get("Authorization")


# A pod


async def test_a_pod_uses_its_service_account_and_follows_its_tokens_rotation(secure: ApiServer, account: Path) -> None:
    async with await connect() as client:
        assert await authorization(secure, client) == "Bearer first"
        (account / "token").write_text("second\n")
        assert await authorization(secure, client) == "Bearer second"


async def test_a_token_that_cannot_be_read_later_fails_the_request_and_not_the_client(
    secure: ApiServer, account: Path
) -> None:
    async with await connect() as client:
        (account / "token").unlink()
        with pytest.raises(CredentialsError, match="token: cannot be read: No such file"):
            await client.get(NAMESPACES)
        assert not secure.requests
        (account / "token").write_text("third")
        assert await authorization(secure, client) == "Bearer third"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a token"),
        (b" \n", "not a token"),
        (b"two\nlines", "not a token"),
        (b"\xff\xfe", "not a token"),
        (b"x" * (65 << 10), "larger than 65536 bytes"),
        (b"null\0byte", "not a token"),
    ],
)
async def test_a_file_that_is_not_a_token_is_refused_without_quoting_it(
    secure: ApiServer, account: Path, content: bytes, message: str
) -> None:
    (account / "token").write_bytes(content)
    with pytest.raises(CredentialsError, match=message) as caught:
        await connect()
    assert "two" not in str(caught.value)


async def test_a_pod_trusts_its_cluster_alone(secure: ApiServer, account: Path) -> None:
    write_pair(account)  # another CA
    async with await connect() as client:
        with pytest.raises(UnreachableError) as caught:
            await client.get(NAMESPACES)
    assert caught.value.cause == "ClientConnectorCertificateError"
    assert not secure.requests


@pytest.mark.parametrize(
    ("host", "port", "server"),
    [
        ("10.0.0.1", "443", "https://10.0.0.1:443"),
        ("fd00::1", "6443", "https://[fd00::1]:6443"),
        ("kubernetes.example", "443", "https://kubernetes.example:443"),
    ],
)
async def test_the_host_may_be_a_name_or_an_address(account: Path, host: str, port: str, server: str) -> None:
    found = await in_cluster({HOST_VARIABLE: host, PORT_VARIABLE: port}, account).access()
    assert found.server == server
    assert "first" not in repr(found)


@pytest.mark.parametrize("environment", [{}, {HOST_VARIABLE: "h"}, {HOST_VARIABLE: "h", PORT_VARIABLE: "https"}])
async def test_a_process_outside_a_cluster_says_so(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (HOST_VARIABLE, PORT_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(CredentialsError, match="this process runs in no cluster"):
        await connect()
    assert (unusable(None, environment) is None) is (HOST_VARIABLE in environment)


@pytest.mark.parametrize("missing", ["token", "ca.crt"])
async def test_a_pod_without_credentials_says_which_file(account: Path, missing: str) -> None:
    (account / missing).unlink()
    with pytest.raises(CredentialsError, match=missing):
        await connect()


# A person


async def test_a_kubeconfigs_token(secure: ApiServer, tmp_path: Path) -> None:
    path = write_kubeconfig(tmp_path, secure.url, {"token": "t0ken"}, **{"certificate-authority": "ca.crt"})
    async with await connect(path) as client:
        assert await authorization(secure, client) == "Bearer t0ken"


async def test_a_kubeconfigs_client_certificate(secure: ApiServer, tmp_path: Path) -> None:
    user = {"client-certificate": "tls.crt", "client-key": "tls.key"}
    presented: list[object] = []

    async def answer(request: Any) -> Any:
        presented.append(request.transport.get_extra_info("peercert"))
        return await secure._list(request)

    path = write_kubeconfig(tmp_path, secure.url, user, **{"certificate-authority": "ca.crt"})
    secure.faults[NAMESPACES].append(answer)
    async with await connect(path) as client:
        assert await authorization(secure, client) is None
    assert presented[0]


def _plugin(folder: Path) -> dict[str, Any]:
    """An exec plugin whose tokens are `plugin-1`, `plugin-2` and so on."""
    script = folder / "plugin"
    counter = folder / "count"
    script.write_text(
        f"""#!{sys.executable}
import json, pathlib
counter = pathlib.Path({str(counter)!r})
number = int(counter.read_text() or 0) + 1 if counter.exists() else 1
counter.write_text(str(number))
status = {{"token": f"plugin-{{number}}"}}
print(json.dumps({{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status}}))
"""
    )
    script.chmod(0o755)
    return {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": str(script)}}


async def test_an_exec_plugin_runs_again_when_its_token_is_refused(secure: ApiServer, tmp_path: Path) -> None:
    path = write_kubeconfig(tmp_path, secure.url, _plugin(tmp_path), **{"certificate-authority": "ca.crt"})
    now = 1000.0
    async with Client(Kubeconfig(path, clock=lambda: now)) as client:
        assert await authorization(secure, client) == "Bearer plugin-1"
        assert await authorization(secure, client) == "Bearer plugin-1"
        now += 60
        secure.faults[NAMESPACES].append(status(401))
        assert await authorization(secure, client) == "Bearer plugin-2"
        # Refused right after that, the plugin is no help: it does not run for each request.
        secure.faults[NAMESPACES].append(status(401))
        with pytest.raises(StatusError) as caught:
            await client.get(NAMESPACES)
    assert caught.value.status == 401
    assert (tmp_path / "count").read_text() == "2"


async def test_a_kubeconfig_that_trusts_another_ca_sends_no_token(secure: ApiServer, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    write_pair(tmp_path / "other")
    path = write_kubeconfig(tmp_path, secure.url, {"token": "t0ken"}, **{"certificate-authority": "other/ca.crt"})
    async with await connect(path) as client:
        with pytest.raises(UnreachableError):
            await client.get(NAMESPACES)
    assert not secure.requests


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("{}", "ConfigException"),
        ("{", "ParserError"),
        ("[]", "TypeError"),
        (None, "ConfigException"),
        ('{"current-context": "c", "contexts": [{"name": "c", "context": {"token": "hunter2"}}]}', "ConfigException"),
    ],
)
async def test_an_unusable_kubeconfig_is_named_and_not_quoted(tmp_path: Path, text: str | None, kind: str) -> None:
    path = tmp_path / "kubeconfig"
    if text is not None:
        path.write_text(text)
    with pytest.raises(CredentialsError, match="cannot be used as a kubeconfig") as caught:
        await connect(str(path))
    assert str(path) in str(caught.value)
    assert kind in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__suppress_context__


async def test_an_installation_without_the_library_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubeconfig, "find_spec", lambda _name: None)
    message = unusable(str(tmp_path / "kubeconfig"), {})
    assert message is not None
    assert "kubernetes-asyncio, which reads it, is not installed" in message
    assert "\n" not in message
    with pytest.raises(CredentialsError, match="not installed"):
        await connect(str(tmp_path / "kubeconfig"))


_WITHOUT_LIBRARY = """
import sys
sys.modules["kubernetes_asyncio"] = None
from cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def test_a_webhook_in_its_image_refuses_a_kubeconfig_in_one_line(tmp_path: Path) -> None:
    write_pair(tmp_path)
    options = ["--listen", "127.0.0.1:0", "--tls-cert", tmp_path / "tls.crt", "--tls-key", tmp_path / "tls.key"]
    command = [sys.executable, "-c", _WITHOUT_LIBRARY, "webhook", *options, "--kubeconfig", tmp_path / "kubeconfig"]
    done = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    (problem,) = json.loads(done.stderr.splitlines()[-1])["problems"]
    assert problem == kubeconfig.MISSING_PACKAGE


# The library


def test_no_module_of_ours_imports_kubernetes_asyncio_by_an_internal_path() -> None:
    public = ("kubernetes_asyncio.client", "kubernetes_asyncio.config")
    found = [
        (str(file.relative_to(ROOT)), line.split()[1])
        for package in ("webhook", "sidecar", "attestation", "certs", "server", "cli", "demo", "tools")
        for file in (ROOT / package).rglob("*.py")
        for line in file.read_text().splitlines()
        if re.match(r"\s*(import|from) kubernetes_asyncio", line)
    ]
    assert found
    for file, module in found:
        assert file == "server/kubernetes/kubeconfig.py"
        assert module in public


_START = """
import asyncio, sys
from server.kubernetes import credentials
from server.kubernetes.connect import connect
import webhook.server, certs.controller, cli.commands.webhook
from webhook.cluster.live import LiveCluster

async def main():
    async with await connect():
        pass

import pathlib
credentials.SERVICE_ACCOUNT = pathlib.Path(sys.argv[1])
asyncio.run(main())
print([name for name in sys.modules if name.startswith("kubernetes_asyncio")])
"""


def test_a_servers_start_in_a_cluster_loads_none_of_it(account: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _START, str(account)], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")
