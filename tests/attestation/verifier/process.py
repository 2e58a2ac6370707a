"""A verifier as users run it: a process of its own, over TLS, with its folder of files."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from attestation.simulator.device import DEFAULT_MEASUREMENT
from attestation.simulator.hierarchy import TCB, Hierarchy
from tests.attestation.verifier.guest import Client
from tests.attestation.verifier.tokens import ISSUER
from tests.support.certificates import write_pair
from tests.support.paths import ROOT

HOST_DATA = bytes(range(32))
GUEST = {
    "product": "Simulated",
    "measurements": [DEFAULT_MEASUREMENT.hex()],
    "minTcb": TCB.as_dict(),
}


def policy(service: str = "payments", **changes: Any) -> dict[str, Any]:
    """An appraisal policy of assurance workload; `account` changes its service account."""
    workload = {"cluster": "prod", "namespace": "shop", "service": service}
    workload["serviceAccount"] = changes.pop("account", "default")
    return {
        "workload": workload | changes.pop("workload", {}),
        "assurance": "workload",
        "hostData": [HOST_DATA.hex()],
        "guests": ["simulated"],
        "vault": {"mount": "jwt-prod", "role": "knative"},
    } | changes


def write_signing_key(path: Path) -> str:
    """A new P-256 key of mode 0400; returns its public half as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    path.chmod(0o400)
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


@dataclass
class Site:
    """The folder of one verifier: configuration, policies, guests, keys; change it before or while it runs."""

    folder: Path
    hierarchy: Hierarchy
    vault_url: str
    public_keys: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("policies", "guests"):
            (self.folder / name).mkdir()
        write_pair(self.folder)
        self.public_keys.append(write_signing_key(self.folder / "signing.pem"))
        (self.folder / "session.key").write_bytes(secrets.token_bytes(32))
        (self.folder / "session.key").chmod(0o400)
        self.write_guests({"simulated": GUEST})
        self.settings = {
            "mode": "development",
            "clusters": [{"name": "prod", "issuer": ISSUER, "jwks": {"file": "prod.jwks"}}],
            "policies": "policies",
            "guests": "guests",
            "certificates": {
                "crls": [str(self.hierarchy.crl_path)],
                "simulatedRoot": str(self.hierarchy.root_path),
                "keyService": None,
            },
            "vault": {"url": self.vault_url},
            "signing": {"keys": ["signing.pem"]},
            "session": {"key": "session.key"},
            "explain": {"folder": "verdicts"},
        }

    def write_policy(self, name: str, record: dict[str, Any]) -> None:
        (self.folder / "policies" / f"{name}.yaml").write_text(yaml.safe_dump(record))

    def write_guests(self, guests: dict[str, Any]) -> None:
        (self.folder / "guests" / "guests.yaml").write_text(yaml.safe_dump(guests))

    def write(self) -> Path:
        """The configuration file."""
        path = self.folder / "verifier.yaml"
        path.write_text(yaml.safe_dump(self.settings))
        return path


@dataclass
class Verifier:
    """A running verifier."""

    process: subprocess.Popen[bytes]
    site: Site
    log_path: Path
    port: int
    metrics_port: int

    def client(self) -> Client:
        return Client(self.port, self.site.folder / "ca.crt")

    def log(self) -> list[dict[str, Any]]:
        """What it has logged so far."""
        return [json.loads(line) for line in self.log_path.read_text().splitlines()]

    def events(self, name: str, correlation_id: str | None = None) -> list[dict[str, Any]]:
        """Log lines of one event, of one correlation id."""
        return [
            line
            for line in self.log()
            if line["event"] == name and correlation_id in (None, line.get("correlation_id"))
        ]


def command(name: str, *arguments: object) -> list[str]:
    """The command line of a subcommand."""
    return [sys.executable, "-m", "cli.main", name, *map(str, arguments)]


@contextlib.contextmanager
def verifier(site: Site, name: str = "verifier") -> Iterator[Verifier]:
    """A verifier process that listens; killed at the end if it still runs."""
    log_path = site.folder / f"{name}.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(start_command(site), stderr=log, cwd=ROOT, env=dict(os.environ))
    try:
        yield Verifier(process, site, log_path, *_ports(process, log_path))
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def start_command(site: Site) -> list[str]:
    """The command line of a verifier on this site."""
    arguments = ["--config", site.write(), "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"]
    arguments += ["--tls-cert", site.folder / "tls.crt", "--tls-key", site.folder / "tls.key"]
    return command("verifier", *arguments)


def _ports(process: subprocess.Popen[bytes], log: Path) -> tuple[int, int]:
    deadline = time.monotonic() + 60
    pattern = r'"listening","address":\["127.0.0.1",(\d+)\],"metrics":\["127.0.0.1",(\d+)\]'
    while time.monotonic() < deadline and process.poll() is None:
        if found := re.search(pattern, log.read_text()):
            return int(found[1]), int(found[2])
        time.sleep(0.02)
    raise RuntimeError(f"the verifier did not start: {log.read_text()}")


def terminate(running: Verifier) -> int:
    """SIGTERM twice (no wait for endpoints), then the exit code."""
    running.process.send_signal(signal.SIGTERM)
    running.process.send_signal(signal.SIGTERM)
    return running.process.wait(40)


def until(condition: Callable[[], object], seconds: float = 20) -> None:
    """Wait for a condition of another process, which gives no event to await."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
