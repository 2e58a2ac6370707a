"""A verifier as users run it: a process of its own, over TLS, with its folder of files."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from attestation.simulator.device import DEFAULT_MEASUREMENT
from attestation.simulator.hierarchy import TCB, Hierarchy
from tests.attestation.verifier.guest import Client
from tests.attestation.verifier.tokens import ISSUER, Issuer
from tests.support.certificates import write_pair
from tests.support.processes import listening_ports, morphisms, running
from tests.support.until import until

HOST_DATA = bytes(range(32))
GUEST = {
    "product": "Simulated",
    "measurements": [DEFAULT_MEASUREMENT.hex()],
    "minTcb": TCB.as_dict(),
    "initdata": "enforced",
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


def exemption(days: int = 30) -> dict[str, str]:
    """What lets a verifier of mode production have its keys in files, for so many days from now."""
    expires = datetime.now(UTC).date() + timedelta(days=days)
    return {"id": "key-files", "reason": "a test", "expires": expires.isoformat()}


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
    port: int = 0  # any

    def __post_init__(self) -> None:
        for name in ("policies", "guests"):
            (self.folder / name).mkdir()
        write_pair(self.folder)
        self.public_keys.append(write_signing_key(self.folder / "signing.pem"))
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
            "vault": {"url": self.vault_url, "timeoutSeconds": 15},
            "signing": {"keys": ["signing.pem"]},
            "explain": {"folder": "verdicts"},
        }

    def policy_path(self, name: str, record: dict[str, Any] | None = None) -> Path:
        """Where the record of a Service lies; by default in the cluster and namespace that `policy` names."""
        workload = (record or policy())["workload"]
        return self.folder / "policies" / workload["cluster"] / workload["namespace"] / f"{name}.yaml"

    def write_policy(self, name: str, record: dict[str, Any]) -> None:
        """Write the record in one step, as a mounted ConfigMap changes."""
        path = self.policy_path(name, record)
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f".{path.name}")
        new.write_text(yaml.safe_dump(record))
        new.replace(path)

    def write_guests(self, guests: dict[str, Any]) -> None:
        """As `write_policy`, in one step."""
        new = self.folder / "guests" / ".guests.yaml"
        new.write_text(yaml.safe_dump(guests))
        new.replace(new.with_name("guests.yaml"))

    def records(self) -> list[dict[str, Any]]:
        """What the verifier has kept for `morphisms explain`."""
        return [json.loads(line) for path in (self.folder / "verdicts").glob("*.jsonl") for line in whole_lines(path)]

    def write(self) -> Path:
        """The configuration file."""
        path = self.folder / "verifier.yaml"
        path.write_text(yaml.safe_dump(self.settings))
        return path


def make_site(folder: Path, hierarchy: Hierarchy, issuer: Issuer, vault_url: str) -> Site:
    """A verifier's folder without policies."""
    site = Site(folder, hierarchy, vault_url)
    issuer.write_jwks(folder / "prod.jwks")
    return site


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
        return [json.loads(line) for line in whole_lines(self.log_path)]

    def events(self, name: str, correlation_id: str | None = None) -> list[dict[str, Any]]:
        """Log lines of one event, of one correlation id."""
        return [
            line
            for line in self.log()
            if line["event"] == name and correlation_id in (None, line.get("correlation_id"))
        ]


@contextlib.contextmanager
def verifier(site: Site, name: str = "verifier") -> Iterator[Verifier]:
    """A verifier process that listens; killed at the end if it still runs."""
    log_path = site.folder / f"{name}.log"
    log_path.unlink(missing_ok=True)
    with running(start_command(site), log_path) as process:
        yield Verifier(process, site, log_path, *listening_ports(process, log_path))


def start_command(site: Site) -> list[str]:
    """The command line of a verifier on this site."""
    arguments = ["--config", site.write(), "--listen", f"127.0.0.1:{site.port}", "--metrics-listen", "127.0.0.1:0"]
    if "provisioning" not in site.settings:
        arguments += ["--tls-cert", site.folder / "tls.crt", "--tls-key", site.folder / "tls.key"]
    return morphisms("verifier", *arguments)


def whole_lines(path: Path) -> list[str]:
    """The lines of a file that another process writes; of the last one it may have written a part so far."""
    return path.read_text().rpartition("\n")[0].splitlines()


def terminate(running: Verifier) -> int:
    """Send SIGTERM and, once it counts, again, so that there is no lame duck; return the exit code."""
    running.process.send_signal(signal.SIGTERM)
    until(lambda: running.events("draining"))
    running.process.send_signal(signal.SIGTERM)
    return running.process.wait(300)
