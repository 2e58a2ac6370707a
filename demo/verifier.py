"""`morphisms verifier`, and its operator's folder: trusted guests, trusted token issuers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from attestation.simulator.hierarchy import TCB
from demo.certificates import Certificates
from demo.hardware import Hardware
from demo.openbao import OpenBao
from demo.process import Process, morphisms, run
from demo.tokens import ISSUER, Issuer
from demo.transcript import UnexpectedError

CLUSTER = "demo"
# Of the guest that the verifier itself runs in.
HOST_DATA = "6b" * 32
_GUEST = "simulated-guest"


def write_site(folder: Path, hardware: Hardware, own: Hardware, openbao: OpenBao, issuer: Issuer) -> Path:
    """The verifier's configuration file, with everything that it names beside it. `own`: the verifier's own guest."""
    (folder / "policies" / CLUSTER / "shop").mkdir(parents=True)
    (folder / "guests").mkdir()
    issuer.write_jwks(folder / "cluster.jwks")
    key = ec.generate_private_key(ec.SECP256R1())
    _write_private(folder / "signing.pem", key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    guest = {"product": "Simulated", "measurements": [hardware.measurement], "minTcb": TCB.as_dict()}
    _write(folder / "guests" / "guests.yaml", {_GUEST: guest})
    for service, account in (("payments", "payments"), ("newsletter", "newsletter")):
        _write(folder / "policies" / CLUSTER / "shop" / f"{service}.yaml", _policy(service, account))
    settings = {
        "mode": "development",
        "clusters": [{"name": CLUSTER, "issuer": ISSUER, "jwks": {"file": "cluster.jwks"}}],
        "certificates": {"crls": [str(hardware.crls)], "simulatedRoot": str(hardware.root), "keyService": None},
        "vault": {"url": openbao.url, "ca": str(openbao.ca)},
        "signing": {"keys": ["signing.pem"]},
        "attest": {"sources": [{"source": "simulated", "address": own.address}], "references": "references.jws"},
        "explain": {"folder": "verdicts"},
    }
    configuration = folder / "verifier.yaml"
    _write(configuration, settings)
    return configuration


def sign_references(configurations: Sequence[Path], own: Hardware) -> dict[str, Any]:
    """Sign what the verifier has to be, as its operator does; what pods then demand of it (`verifier.attest`).

    All of the configurations are the operator's, so that the guest alone decides.
    """
    folder = configurations[0].parent
    guest = {
        "product": "Simulated",
        "measurements": [own.measurement],
        "minTcb": TCB.as_dict(),
        "policy": {},
        "vmpl": 0,
        "hostData": [HOST_DATA],
        "initdata": "enforced",
    }
    _write(folder / "kms.yaml", {"key-server": guest})
    options = ["--guests", folder / "kms.yaml", "--serial", "1", "--new-key"]
    options += [word for each in configurations for word in ("--configuration", each)]
    options += ["--key", folder / "signer.pem", "--output", folder / "references.jws"]
    done = run(morphisms("kms", "references", *options))
    if done.returncode != 0:
        raise UnexpectedError(f"morphisms kms references: {done.stderr.strip()}")
    demanded: dict[str, Any] = yaml.safe_load(done.stdout) | {"simulatedRoot": own.root.read_text()}
    for each in configurations:
        _write(each.parent / "attest.yaml", demanded)
        if each.parent != folder:
            shutil.copy(folder / "references.jws", each.parent)
    return demanded


def write_impostor(folder: Path, configuration: Path, own: Hardware) -> Path:
    """The same verifier with all its keys, but in an ordinary guest."""
    shutil.copytree(configuration.parent, folder)
    settings = yaml.safe_load(configuration.read_text())
    settings["attest"]["sources"][0]["address"] = own.address
    _write(folder / configuration.name, settings)
    return folder / configuration.name


class Verifier(Process):
    """The server, and its operator's `morphisms explain`."""

    def __init__(self, configuration: Path, certificates: Certificates) -> None:
        self._configuration = configuration
        arguments = ["--config", configuration, "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"]
        arguments += ["--tls-cert", certificates.certificate, "--tls-key", certificates.key]
        log = configuration.parent.with_suffix(".log")
        super().__init__("the verifier", morphisms("verifier", *arguments), log)

    def ready(self) -> None:
        port = self.await_line(r'"listening","address":\["127.0.0.1",(\d+)\]')[1]
        self.url = f"https://127.0.0.1:{port}"

    def attest(self) -> str:
        """The last line of `morphisms kms attest`."""
        policy = self._configuration.parent / "attest.yaml"
        done = run(morphisms("kms", "attest", self.url, "--policy", policy))
        if done.returncode not in (0, 1):
            raise UnexpectedError(f"morphisms kms attest: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout.splitlines()[-1].strip()

    def has_records(self) -> bool:
        """Whether it has recorded anything about a guest."""
        return any(path.stat().st_size for path in (self._configuration.parent / "verdicts").glob("*.jsonl"))

    def explain(self, correlation_id: str) -> dict[str, Any]:
        """`morphisms explain ID --json`: the last record under the id."""
        done = run(morphisms("explain", correlation_id, "--config", self._configuration, "--json"))
        if done.returncode != 0:
            raise UnexpectedError(f"morphisms explain: {done.stderr.strip()}")
        # A document per call under the id, indented: each begins with a line that is a brace.
        last = done.stdout.rpartition("\n{\n")[2].removeprefix("{\n")
        record: dict[str, Any] = json.loads("{" + last)
        return record


def _policy(service: str, account: str) -> dict[str, Any]:
    """What webhook-injected pods can have: no initdata, hence no HOST_DATA that names the workload.

    There is no API server to look the pod up at, so the account alone says which Service it is.
    """
    return {
        "workload": {"cluster": CLUSTER, "namespace": "shop", "service": service, "serviceAccount": account},
        "assurance": "vm",
        "exclusiveServiceAccount": True,
        "guests": [_GUEST],
        "vault": {"mount": f"jwt-{CLUSTER}", "role": "knative"},
    }


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(yaml.safe_dump(content, sort_keys=False))


def _write_private(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    path.chmod(0o400)
