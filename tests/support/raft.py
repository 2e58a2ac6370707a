"""A real OpenBao as it runs beside a cluster: over TLS alone, with raft storage, sealed at each start; never `-dev`."""

from __future__ import annotations

import contextlib
import http.client
import json
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.certificates import write_pair
from tests.support.openbao import OpenBao, start_openbao
from tests.support.ports import free_port
from tests.support.until import until

_CONFIGURATION = """
disable_mlock = true
api_addr = "https://127.0.0.1:{port}"
cluster_addr = "https://127.0.0.1:{cluster_port}"
storage "raft" {{
  path = "{folder}/raft"
  node_id = "only"
  performance_multiplier = 1
}}
listener "tcp" {{
  address = "127.0.0.1:{port}"
  cluster_address = "127.0.0.1:{cluster_port}"
  tls_cert_file = "{folder}/tls.crt"
  tls_key_file = "{folder}/tls.key"
  http_read_header_timeout = "10m"
}}
listener "tcp" {{
  address = "127.0.0.1:{plain_port}"
  cluster_address = "127.0.0.1:{plain_cluster_port}"
  tls_disable = true
  http_read_header_timeout = "10m"
}}
"""
_ACTIVE, _SEALED, _NEW = 200, 503, 501  # sys/health


class RaftOpenBao(OpenBao):
    """One node that outlives its process. `ca`: PEM, also in the file `ca_path`.

    `plain_url`: the same without TLS, as it listens beside a verifier. Of the keys in `shares`, any `threshold` unseal
    it.
    """

    def __init__(self, folder: Path, shares: int = 1, threshold: int = 1) -> None:
        (folder / "raft").mkdir()
        write_pair(folder)
        self.ca_path = folder / "ca.crt"
        self.ca = self.ca_path.read_text()
        self._folder = folder
        self._context = ssl.create_default_context(cafile=str(self.ca_path))
        port, cluster_port = free_port(), free_port()
        ports = {
            "port": port,
            "cluster_port": cluster_port,
            "plain_port": free_port(),
            "plain_cluster_port": free_port(),
        }
        (folder / "openbao.hcl").write_text(_CONFIGURATION.format(folder=folder, **ports))
        self.plain_url = f"http://127.0.0.1:{ports['plain_port']}"
        super().__init__(self._spawn(), port, port, self.ca)
        self.root_token = ""
        self._until(_NEW)
        made = self.done("PUT", "sys/init", {"secret_shares": shares, "secret_threshold": threshold})
        self.root_token, self.shares = made["root_token"], made["keys"]
        self._threshold = threshold
        self.unseal()

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def call(self, method: str, path: str, body: Any = None, token: str | None = None) -> tuple[int, Any]:
        """(status, decoded answer) of one API call, as root without a token."""
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=300, context=self._context)
        content = None if body is None else json.dumps(body)
        try:
            connection.request(method, f"/v1/{path}", content, {"X-Vault-Token": token or self.root_token})
            answer = connection.getresponse()
            data = answer.read()
        finally:
            connection.close()
        return answer.status, json.loads(data) if data else None

    def seal(self) -> None:
        """Until `unseal` it answers 503."""
        self.done("PUT", "sys/seal")
        self._until(_SEALED)

    def unseal(self) -> None:
        """Back when it is the active node."""
        for share in self.shares[: self._threshold]:
            self.done("PUT", "sys/unseal", {"key": share})
        self._until(_ACTIVE)

    def kill(self) -> None:
        """As a node that loses its power."""
        self.process.kill()
        self.process.wait()

    def start(self) -> None:
        """Again after `kill`, on the same address and data; it comes up sealed."""
        self.process = self._spawn()
        self._until(_SEALED)

    def accessors(self) -> set[str]:
        """Of all tokens that are good for something."""
        return set(self.done("LIST", "auth/token/accessors")["data"]["keys"])

    def _spawn(self) -> subprocess.Popen[bytes]:
        return start_openbao(self._folder, f"-config={self._folder / 'openbao.hcl'}")

    def _until(self, status: int) -> None:
        try:
            until(lambda: self._health() == status)
        except AssertionError:
            raise RuntimeError(f"no {status} from OpenBao: {(self._folder / 'openbao.log').read_text()}") from None

    def _health(self) -> int:
        if self.process.poll() is not None:
            raise RuntimeError(f"OpenBao ended: {(self._folder / 'openbao.log').read_text()}")
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self.call("GET", "sys/health")[0]
        return 0


@contextlib.contextmanager
def raft_openbao(folder: Path, shares: int = 1, threshold: int = 1) -> Iterator[RaftOpenBao]:
    """Set up with a KV engine `secret`; killed at the end."""
    server = RaftOpenBao(folder, shares, threshold)
    try:
        server.done("POST", "sys/mounts/secret", {"type": "kv", "options": {"version": "2"}})
        # A new mount first makes itself a versioned one, and refuses meanwhile.
        until(lambda: server.call("POST", "secret/data/first", {"data": {}})[0] == 200)
        yield server
    finally:
        server.kill()
