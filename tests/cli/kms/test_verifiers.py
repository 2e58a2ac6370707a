"""`kms attest` and `kms provision` on real verifiers that start sealed: two replicas, and those who pose as one."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import yaml

from attestation.simulator.hierarchy import Hierarchy
from cli.main import main
from tests.attestation.kms import KMS_ENTRY, KMS_HOST_DATA
from tests.attestation.verifier.process import Site, Verifier, make_site, policy
from tests.attestation.verifier.test_provisioning import authority, signing_key, text_of
from tests.attestation.verifier.tokens import Issuer
from tests.cli.recorded import Command
from tests.support.ports import free_port
from tests.support.processes import morphisms, running
from tests.support.simulated_machine import simulated_machine
from tests.support.until import until


@dataclass
class Kms:
    """Two replicas of one configuration, at 127.0.0.1 and 127.0.0.2, and the folder of the people who run them."""

    desk: Path
    site: Site
    replicas: list[Verifier]
    port: int

    @property
    def url(self) -> str:
        return f"https://kms.example:{self.port}"

    def attest(self, kms: Command, *more: str, policy: str = "kms.yaml", url: str = "") -> tuple[int, str, str]:
        result = kms("attest", url or self.url, "--policy", str(self.desk / policy), "--timeout", "60", *more)
        return result.code, result.out, result.err

    def provision(
        self, kms: Command, *secrets: str, key: str = "ann.pem", policy: str = "kms.yaml", url: str = ""
    ) -> tuple[int, str]:
        words = [word for name in secrets for word in ("--secret", f"{name}={self.desk / name}")]
        options = ("--policy", str(self.desk / policy), "--key", str(self.desk / key), "--timeout", "60")
        result = kms("provision", url or self.url, *options, *words)
        return result.code, result.out + result.err

    def logged(self) -> str:
        return "".join(each.log_path.read_text() for each in self.replicas)


def _run(*words: str) -> None:
    assert main(["kms", *words]) == 0


def _write(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    path.write_text(text)
    path.chmod(0o400)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, hierarchy: Hierarchy, capfd_module: Callable[[], str]) -> Path:
    """Keys of a signer and of two people, one of whom no configuration lists."""
    folder = tmp_path_factory.mktemp("desk")
    for name in ("ann", "mallory"):
        _run("key", str(folder / f"{name}.pem"), "--new-key")
        (folder / f"{name}.json").write_text(capfd_module())
    _write(folder / "tls-ca-key", text_of(authority()))
    _write(folder / "signing-key", signing_key())
    (folder / "guests.yaml").write_text(yaml.safe_dump({"kms-1": KMS_ENTRY}))
    return folder


@pytest.fixture(scope="module")
def capfd_module() -> Iterator[Callable[[], str]]:
    """What commands have printed since the last call, in fixtures that live for the module."""
    with contextlib.redirect_stdout(StringIO()) as printed:

        def take() -> str:
            text = printed.getvalue()
            printed.seek(0)
            printed.truncate()
            return text

        yield take


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory,
    hierarchy: Hierarchy,
    issuer: Issuer,
    desk: Path,
    capfd_module: Callable[[], str],
) -> Iterator[Site]:
    """The replicas' folder, with signed references; `desk/kms.yaml` is the policy that trusts them."""
    with simulated_machine(hierarchy, KMS_HOST_DATA) as machine:
        site = make_site(tmp_path_factory.mktemp("site"), hierarchy, issuer, "http://127.0.0.1:1")
        site.write_policy("payments", policy())
        site.settings["signing"] = {"provisioned": True}
        site.settings["attest"] = {
            "sources": [{"source": "simulated", "address": machine}],
            "references": "references.jws",
        }
        site.settings["provisioning"] = {
            "provisioners": [json.loads((desk / "ann.json").read_text())],
            "needs": ["signing-key", "tls-ca-key"],
            "names": ["kms.example"],
        }
        options = ["--guests", str(desk / "guests.yaml"), "--configuration", str(site.write()), "--serial", "3"]
        output = str(site.folder / "references.jws")
        _run("references", *options, "--key", str(desk / "signer.pem"), "--new-key", "--output", output)
        trusting = yaml.safe_load(capfd_module()) | {"simulatedRoot": hierarchy.root_path.read_text()}
        (desk / "kms.yaml").write_text(yaml.safe_dump(trusting))
        yield site


@contextlib.contextmanager
def _replica(site: Site, address: str, port: int) -> Iterator[Verifier]:
    log = site.folder / f"{address}-{port}.log"
    words = ["--config", str(site.folder / "verifier.yaml"), "--listen", f"{address}:{port}", "--metrics-listen"]
    with running(morphisms("verifier", *words, f"{address}:0"), log) as process:
        replica = Verifier(process, site, log, port, 0)
        until(lambda: log.exists() and replica.events("listening"))
        yield replica


@pytest.fixture
def both(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name that a headless Service has: it resolves to both replicas."""
    resolve = socket.getaddrinfo

    def answer(host: str, port: int, *more: Any, **options: Any) -> list[Any]:
        if host != "kms.example":
            return resolve(host, port, *more, **options)
        return [found for each in ("127.0.0.1", "127.0.0.2") for found in resolve(each, port, *more, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", answer)


@pytest.fixture
def kms_site(site: Site, desk: Path, both: None) -> Iterator[Kms]:
    """Both replicas, freshly started and so sealed."""
    port = free_port()
    with _replica(site, "127.0.0.1", port) as first, _replica(site, "127.0.0.2", port) as second:
        yield Kms(desk, site, [first, second], port)


def test_people_attest_and_provision_every_replica(kms_site: Kms, kms: Command) -> None:
    """The whole way: attested by self-signed certificates, provisioned, repeated, then below the provisioned CA."""
    folders = ("--policies", str(kms_site.site.folder / "policies"))  # guests are beside it
    files = ("--configuration", str(kms_site.site.folder / "verifier.yaml"), *folders)
    code, out, err = kms_site.attest(kms, *files)
    assert code == 0, out + err
    for address in ("127.0.0.1", "127.0.0.2"):
        assert f"{address}:{kms_site.port}\n  ok     references/signature" in out
    assert out.count("verifier/policies") == out.count("verifier/configuration") == 2
    assert out.count("attested · guest kms-1 · serial 3 · simulated: nothing here is real hardware") == 2
    assert "revocation was not checked, as in a guest" in err

    code, told = kms_site.provision(kms, "signing-key")
    assert code == 0
    for address in ("127.0.0.1", "127.0.0.2"):
        assert f"{address}:{kms_site.port}: signing-key: taken" in told
    assert told.count("still sealed: waits for tls-ca-key") == 2
    code, told = kms_site.provision(kms, "signing-key", "tls-ca-key")
    assert code == 0
    assert told.count("signing-key: unchanged") == told.count("tls-ca-key: taken") == told.count("serves guests") == 2

    ca = kms_site.desk / "ca.crt"
    ca.write_text((kms_site.desk / "tls-ca-key").read_text().partition("-----BEGIN PRIVATE")[0])
    code, out, err = kms_site.attest(kms, "--ca", str(ca), "--json")
    assert code == 0, out + err
    document = json.loads(out)
    assert [each["attested"] for each in document["verifiers"]] == [True, True]
    assert all(each["simulated"] for each in document["verifiers"])
    for line in (kms_site.desk / "tls-ca-key").read_text().splitlines()[-3:-1]:
        assert line not in told + out + kms_site.logged()


def _changed(kms_site: Kms, name: str, **changes: Any) -> str:
    document = yaml.safe_load((kms_site.desk / "kms.yaml").read_text()) | changes
    (kms_site.desk / name).write_text(yaml.safe_dump(document))
    return name


def _by_values(kms_site: Kms, name: str, **changes: Any) -> str:
    root = yaml.safe_load((kms_site.desk / "kms.yaml").read_text())["simulatedRoot"]
    (kms_site.desk / name).write_text(yaml.safe_dump({**KMS_ENTRY, "simulatedRoot": root, **changes}))
    return name


@pytest.fixture(scope="module")
def one(site: Site, desk: Path) -> Iterator[Kms]:
    """One replica that nobody provisions."""
    port = free_port()
    with _replica(site, "127.0.0.1", port) as replica:
        yield Kms(desk, site, [replica], port)


IMPOSTORS: dict[str, tuple[Callable[[Kms], str], str]] = {
    "an older issue": (lambda kms: _changed(kms, "later.yaml", minSerial=4), "references/serial"),
    "another signer": (
        lambda kms: _changed(
            kms,
            "other.yaml",
            signer=json.loads((kms.desk / "mallory.json").read_text()),
        ),
        "references/signature",
    ),
    "another image": (lambda kms: _by_values(kms, "image.yaml", measurements=["ab" * 48]), "guest/measurement"),
    "another pod of the image": (lambda kms: _by_values(kms, "pod.yaml", hostData=["cd" * 32]), "guest/host-data"),
    "another machine": (lambda kms: _changed(kms, "chip.yaml", chipIds=["ef" * 64]), "guest/chip-id"),
    "another configuration": (
        lambda kms: _by_values(kms, "configuration.yaml", configurations=["A" * 43]),
        "references/configuration",
    ),
    "simulated hardware": (lambda kms: _changed(kms, "real.yaml", simulatedRoot=""), "product/line"),
}


@pytest.mark.parametrize("impostor", IMPOSTORS)
def test_another_verifier_gets_no_secret(one: Kms, kms: Command, impostor: str) -> None:
    make, failed = IMPOSTORS[impostor]
    url = f"https://127.0.0.1:{one.port}"
    document = make(one)
    code, out, _ = one.attest(kms, policy=document, url=url)
    assert code == 1
    assert any(line.startswith("  refused") and failed in line for line in out.splitlines()), out
    code, told = one.provision(kms, "signing-key", policy=document, url=url)
    assert code == 1
    assert "nothing was sent: it is not the verifier of the policy" in told
    assert not one.replicas[0].events("provisioned")


def test_other_files_than_the_operators_are_noticed(one: Kms, kms: Command, tmp_path: Path) -> None:
    url = f"https://127.0.0.1:{one.port}"
    other = tmp_path / "policies"
    other.mkdir()
    assert one.attest(kms, "--policies", str(other), url=url)[0] == 2, "no guests beside it"
    assert one.attest(kms, "--guests", str(other), url=url)[0] == 2
    folders = ("--policies", str(other), "--guests", str(one.site.folder / "guests"))
    code, out, _ = one.attest(kms, *folders, url=url)
    assert code == 1
    assert "failed: verifier/policies" in out
    code, out, _ = one.attest(kms, "--configuration", "A" * 43, url=url)
    assert code == 1
    assert "failed: verifier/configuration" in out


def test_a_stranger_provisions_nothing(one: Kms, kms: Command) -> None:
    url = f"https://127.0.0.1:{one.port}"
    code, told = one.provision(kms, "signing-key", key="mallory.pem", url=url)
    assert code == 1
    assert "refused: ProvisionerUnknown" in told
    assert "correlation id" in told
    assert not one.replicas[0].events("provisioned")


def test_a_second_value_is_refused_and_the_first_is_kept(kms_site: Kms, kms: Command) -> None:
    assert kms_site.provision(kms, "signing-key")[0] == 0
    first = (kms_site.desk / "signing-key").read_text()
    try:
        _write(kms_site.desk / "signing-key", signing_key())
        code, told = kms_site.provision(kms, "signing-key")
        assert code == 1
        assert told.count("refused: ProvisionOtherValue: signing-key: another value is held") == 2
    finally:
        _write(kms_site.desk / "signing-key", first)
    assert kms_site.provision(kms, "signing-key")[0] == 0


def test_a_replica_that_is_down_does_not_keep_the_other_waiting(kms_site: Kms, kms: Command) -> None:
    second = kms_site.replicas[1].process
    second.kill()
    second.wait()
    code, told = kms_site.provision(kms, "signing-key", "tls-ca-key")
    assert code == 3
    assert f"127.0.0.1:{kms_site.port}: serves guests" in told
    assert f"127.0.0.2:{kms_site.port}: Connection refused" in told


def test_help_names_the_exit_codes() -> None:
    for command in ("attest", "provision"):
        words = [sys.executable, "-m", "cli.main", "kms", command, "--help"]
        told = subprocess.run(words, capture_output=True, text=True, timeout=300, check=True).stdout
        assert "Exit 0:" in " ".join(told.split())
