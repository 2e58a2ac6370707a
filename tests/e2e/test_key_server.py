"""The key server in a guest, as docs/kms.md sets it up: from an empty volume to a pod with its secret, and again.

The overlay's own configuration files and rendered StatefulSet, `bao`, the commands of the page, a verifier's process
and a pod's. The guest is simulated, and so are its volume, a folder, and its hardware, with the rendered HOST_DATA.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml

from attestation.simulator.hierarchy import Hierarchy
from cli.main import main
from plan.document import EvidenceSource, Plan, SecretFile, Vault, Workload
from plan.document import Verifier as VerifierPlan
from server.verifier_attest import AttestFile
from sidecar.reasons import Exit
from tests.attestation.kms import KMS_ENTRY
from tests.attestation.verifier.process import GUEST, policy
from tests.attestation.verifier.test_provisioning import authority, text_of
from tests.attestation.verifier.tokens import ISSUER, Issuer
from tests.cli import kinds
from tests.sidecar.pod import Pod, refused
from tests.support.openbao import binary
from tests.support.paths import ROOT
from tests.support.ports import free_port
from tests.support.processes import morphisms, running
from tests.support.simulated_machine import simulated_machine
from tests.support.until import until

pytestmark = pytest.mark.slow
OVERLAY = ROOT / "manifests" / "overlays" / "kms-in-guests"
CANARY = "canary-of-the-key-server"
PATH = "secret/data/knative/prod/shop/payments/db"


@dataclass
class Volume:
    """OpenBao on a folder that the host holds. `shares`, `root_token`: with people."""

    folder: Path
    port: int
    shares: tuple[str, ...] = ()
    root_token: str = ""

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """As its container starts it, on the loopback; sealed, once it is initialised."""
        log = self.folder / "openbao.log"
        log.unlink(missing_ok=True)
        command = [binary(), "server", f"-config={self.folder / 'openbao.hcl'}"]
        with running(command, log):
            until(self._answers)
            yield

    def _answers(self) -> bool:
        with contextlib.suppress(OSError, http.client.HTTPException):
            self.call("GET", "sys/seal-status")
            return True
        return False

    def call(self, method: str, path: str, body: Any = None) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        with contextlib.closing(connection):
            headers = {"X-Vault-Token": self.root_token} if self.root_token else {}
            connection.request(method, f"/v1/{path}", None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            data = answer.read()
            assert answer.status < 400 or path == "sys/health", (path, answer.status, data)
            return json.loads(data) if data else None

    def initialise(self) -> None:
        """On the operator's own machine, before the volume is ever at a host's."""
        made = self.call("PUT", "sys/init", {"secret_shares": 3, "secret_threshold": 2})
        self.shares, self.root_token = tuple(made["keys_base64"]), made["root_token"]
        for share in self.shares[:2]:
            self.call("PUT", "sys/unseal", {"key": share})
        until(lambda: self.call("GET", "sys/leader")["is_self"])
        self.call("POST", "sys/mounts/secret", {"type": "kv", "options": {"version": "2"}})
        until(self._takes_secrets)

    def _takes_secrets(self) -> bool:
        """A new mount first makes itself a versioned one, and refuses meanwhile."""
        with contextlib.suppress(AssertionError):
            self.call("POST", "secret/data/first", {"data": {}})
            return True
        return False


@dataclass
class Desk:
    """The folder of the people who run it, and the configuration of the guest."""

    folder: Path
    site: Path
    volume: Volume
    port: int
    vault_port: int

    def kms(self, command: str, *words: str | Path, code: int = 0) -> str:
        done = subprocess.run(
            list(map(str, morphisms("kms", command, *words))), capture_output=True, text=True, timeout=120
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.unlink(missing_ok=True)
        path.write_text(text)
        path.chmod(0o400)
        return path

    def provision(self, *names: str, policy: str = "kms.yaml", code: int = 0) -> str:
        secrets = [word for name in names for word in ("--secret", f"{name}={self.folder / name}")]
        for number in (0, 1):
            secrets += ["--secret", f"unseal-share={self.folder / f'share-{number}'}"]
        options = ("--policy", self.folder / policy, "--key", self.folder / "ann.pem", "--timeout", "60")
        return self.kms("provision", f"https://127.0.0.1:{self.port}", *options, *secrets, code=code)

    @contextlib.contextmanager
    def guest(self, configuration: str = "verifier.yaml") -> Iterator[Path]:
        """Both processes, as the guest starts them: sealed. The verifier's log."""
        log = self.site / "verifier.log"
        log.unlink(missing_ok=True)
        words = ["--config", self.site / configuration, "--listen", f"127.0.0.1:{self.port}"]
        with self.volume.running(), running(morphisms("verifier", *words), log):
            until(lambda: log.exists() and '"listening"' in log.read_text())
            yield log


def _bao_configuration(folder: Path) -> Volume:
    """The overlay's, with a folder and ports of this machine."""
    port = free_port()
    text = (OVERLAY / "openbao.hcl").read_text()
    for old, new in (
        ("/openbao/data", str(folder / "raft")),
        ("127.0.0.1:8200", f"127.0.0.1:{port}"),
        ("127.0.0.1:8201", f"127.0.0.1:{free_port()}"),
    ):
        assert old in text
        text = text.replace(old, new)
    (folder / "raft").mkdir()
    (folder / "openbao.hcl").write_text(text)
    return Volume(folder, port)


def _settings(hierarchy: Hierarchy, volume: Volume, machine: str, provisioner: Mapping[str, str]) -> dict[str, Any]:
    """The overlay's configuration of the verifier, with this machine's addresses, and simulated hardware."""
    settings: dict[str, Any] = yaml.safe_load((OVERLAY / "verifier.yaml").read_text())
    (cluster,) = settings["clusters"]
    del cluster["readBack"]  # no API server here
    settings |= {
        "mode": "development",
        "clusters": [{**cluster, "name": "prod", "issuer": ISSUER, "jwks": {"file": "prod.jwks"}}],
        "policies": "policies",
        "guests": "guests",
        "certificates": {
            "crls": [str(hierarchy.crl_path)],
            "simulatedRoot": str(hierarchy.root_path),
            "keyService": None,
        },
        "explain": {"folder": "verdicts"},
    }
    settings["vault"]["url"] = f"http://127.0.0.1:{volume.port}"
    settings["attest"]["sources"] = [{"source": "simulated", "address": machine}]
    settings["provisioning"] |= {"provisioners": [provisioner], "names": ["127.0.0.1"], "vaultPort": free_port()}
    return settings


def _rendered(folder: Path, item: dict[str, Any]) -> str:
    """HOST_DATA of the StatefulSet, as `morphisms render` writes it for the reference values."""
    assert main([*kinds.write_inputs(folder, item), "-o", str(folder / "out")]) == 0
    (host_data,) = yaml.safe_load((folder / "out" / "guest.yaml").read_text())["hostData"]
    return str(host_data)


def _changed() -> dict[str, Any]:
    """The overlay's StatefulSet, with a container beside the two that could read their memory."""
    item = kinds.key_server()
    item["spec"]["template"]["spec"]["containers"].append({"name": "helper", "image": kinds.OPENBAO, "args": ["sh"]})
    return item


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, hierarchy: Hierarchy, issuer: Issuer) -> Iterator[Desk]:
    """The first steps of the page: keys, an initialised OpenBao, the configuration, signed references.

    The references list a second configuration, of a machine whose guest has the document of a changed StatefulSet.
    """
    root = tmp_path_factory.mktemp("key-server")
    folders = {name: root / name for name in ("desk", "volume", "site")}
    for folder in folders.values():
        folder.mkdir()
    site = folders["site"]
    host_data, changed = _rendered(root / "rendered", kinds.key_server()), _rendered(root / "changed", _changed())
    with (
        simulated_machine(hierarchy, bytes.fromhex(host_data)) as machine,
        simulated_machine(hierarchy, bytes.fromhex(changed)) as other,
    ):
        volume = _bao_configuration(folders["volume"])
        desk = Desk(folders["desk"], site, volume, free_port(), 0)
        provisioner = json.loads(desk.kms("key", desk.folder / "ann.pem", "--new-key"))
        settings = _settings(hierarchy, volume, machine, provisioner)
        desk.vault_port = settings["provisioning"]["vaultPort"]
        (site / "verifier.yaml").write_text(yaml.safe_dump(settings))
        sources = [{"source": "simulated", "address": other}]
        elsewhere = {**settings, "attest": {**settings["attest"], "sources": sources}}
        (site / "changed.yaml").write_text(yaml.safe_dump(elsewhere))
        issuer.write_jwks(site / "prod.jwks")
        (site / "policies" / "prod" / "shop").mkdir(parents=True)
        (site / "guests").mkdir()
        (site / "policies" / "prod" / "shop" / "payments.yaml").write_text(yaml.safe_dump(policy()))
        (site / "guests" / "guests.yaml").write_text(yaml.safe_dump({"simulated": GUEST}))
        with volume.running():
            volume.initialise()
            _set_up(desk)
        entry = {**KMS_ENTRY, "hostData": [host_data]}
        (desk.folder / "guests.yaml").write_text(yaml.safe_dump({"kms-1": entry}))
        both = ("--configuration", site / "verifier.yaml", "--configuration", site / "changed.yaml")
        options = ("--guests", desk.folder / "guests.yaml", *both, "--serial", "1")
        signer = ("--key", desk.folder / "signer.pem", "--new-key", "--output", site / "references.jws")
        trusting = yaml.safe_load(desk.kms("references", *options, *signer))
        trusting["simulatedRoot"] = hierarchy.root_path.read_text()
        (desk.folder / "kms.yaml").write_text(yaml.safe_dump(trusting))
        careless = {**entry, "hostData": [changed], "simulatedRoot": trusting["simulatedRoot"]}
        (desk.folder / "careless.yaml").write_text(yaml.safe_dump(careless))
        yield desk


def _set_up(desk: Desk) -> None:
    """The root token is used here, and nowhere else."""
    volume = desk.volume
    command = morphisms("vault", "setup", "--config", desk.site / "verifier.yaml")
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=120, env={"VAULT_TOKEN": volume.root_token}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    role = "auth/approle/role/morphisms-verifier"
    desk.write("vault-role-id", volume.call("GET", f"{role}/role-id")["data"]["role_id"])
    desk.write("vault-secret-id", volume.call("POST", f"{role}/secret-id", {})["data"]["secret_id"])
    desk.write("tls-ca-key", text_of(authority()))
    for number, share in enumerate(volume.shares[:2]):
        desk.write(f"share-{number}", share)
    volume.call("POST", PATH, {"data": {"password": CANARY}})
    volume.call("POST", "auth/token/revoke-self")


def _pod(folder: Path, desk: Desk, helper: Path, machine: str, issuer: Issuer) -> Pod:
    ca = (desk.folder / "tls-ca-key").read_text().partition("-----BEGIN PRIVATE")[0]
    attest = AttestFile.model_validate(yaml.safe_load((desk.folder / "kms.yaml").read_text())).root.plain()
    folder.mkdir()
    return Pod(
        folder,
        helper,
        Plan(
            workload=Workload("prod", "shop", "payments", "default"),
            evidence=(EvidenceSource("simulated", machine),),
            verifier=VerifierPlan(f"https://127.0.0.1:{desk.port}", ca, "morphisms-verifier", "", attest=attest),
            vault=Vault(f"https://127.0.0.1:{desk.vault_port}", ca, "", (("secret", 2),)),
            secrets=(SecretFile("password", "secret/knative/prod/shop/payments/db", "password", key="password"),),
            deadline_seconds=300,
        ),
        lambda: issuer.token(uid=str(uuid4())),
    )


def test_from_an_empty_volume_to_a_pods_secret_and_again_after_a_restart(
    tmp_path: Path, desk: Desk, helper: Path, machine: str, issuer: Issuer
) -> None:
    url = f"https://127.0.0.1:{desk.port}"
    ids = ("vault-role-id", "vault-secret-id", "tls-ca-key")
    told = ""
    for attempt in ("first", "second"):
        with desk.guest() as log:
            files = ("--policies", desk.site / "policies", "--guests", desk.site / "guests")
            checks = desk.kms("attest", url, "--policy", desk.folder / "kms.yaml", *files, "--timeout", "60")
            if attempt == "first":
                assert "verifier/policies" in checks
            assert re.search(r"attested · guest kms-1 · serial 1 · simulated", checks)
            provisioned = desk.provision(*ids)
            assert provisioned.rstrip().endswith("serves guests")
            until(lambda: '"vault_login"' in log.read_text())
            pod = _pod(tmp_path / attempt, desk, helper, machine, issuer)
            ended = pod.run()
            assert ended.code == 0, ended.stderr
            assert (pod.secrets / "password").read_text() == CANARY
            (event,) = ended.named("verifier_attested")
            assert (event["guest"], event["serial"]) == ("kms-1", 1)
            told += log.read_text() + checks + provisioned
    for name in (*ids, "share-0", "share-1"):
        for line in (desk.folder / name).read_text().split():
            assert len(line) < 30 or line not in told, name


def test_a_changed_stateful_set_is_told_nothing_and_believed_by_no_pod(
    tmp_path: Path, desk: Desk, helper: Path, machine: str, issuer: Issuer
) -> None:
    """The host's own document on genuine hardware: people send it nothing. Were it provisioned, no pod would use it."""
    ids = ("vault-role-id", "vault-secret-id", "tls-ca-key")
    with desk.guest("changed.yaml") as log:
        options = ("--policy", desk.folder / "kms.yaml", "--timeout", "60")
        checks = desk.kms("attest", f"https://127.0.0.1:{desk.port}", *options, code=1)
        failed = [line.split()[1] for line in checks.splitlines() if line.strip().startswith("FAILED")]
        assert failed == ["guest/host-data"]
        desk.provision(*ids, code=1)
        assert '"provisioned"' not in log.read_text()
        # One person is careless: by reference values of their own, which name the changed document.
        assert desk.provision(*ids, policy="careless.yaml").rstrip().endswith("serves guests")
        pod = _pod(tmp_path / "pod", desk, helper, machine, issuer)
        event = refused(pod.run(), Exit.VERIFIER_NOT_ATTESTED, "verifier-not-attested", CANARY)
        assert "guest/host-data" in event["detail"]
        assert pod.published() == []


def test_the_hosts_volume_holds_no_secret_in_the_clear(desk: Desk) -> None:
    files = [path for path in desk.volume.folder.rglob("*") if path.is_file() and path.suffix != ".hcl"]
    assert any(path.stat().st_size > 10_000 for path in files)
    for path in files:
        content = path.read_bytes()
        for secret in (CANARY, *desk.volume.shares, (desk.folder / "vault-secret-id").read_text()):
            assert secret.encode() not in content, path
