"""Pods and real verifiers in guests of their own: which one a pod talks to, and what the others hear of it."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from attestation.simulator.hierarchy import Hierarchy, open_hierarchy
from kbs.verifier_attest import VerifierAttest
from plan.document import SecretFile
from sidecar.reasons import Exit
from tests.attestation.kms import KMS_HOST_DATA
from tests.attestation.verifier.attesting import Signer, make_attesting_site
from tests.attestation.verifier.process import Site, Verifier, verifier
from tests.attestation.verifier.tokens import Issuer
from tests.sidecar.front import front, never
from tests.sidecar.pod import CANARY, HOME, Pod, refused
from tests.sidecar.proving_front import asked_only
from tests.support.certificates import make_pair, write_pair
from tests.support.openbao import OpenBao
from tests.support.simulated_machine import simulated_machine
from tests.support.until import until

FILE = (SecretFile("password", f"{HOME}/db", "password", key="password"),)


@pytest.fixture(scope="module")
def kms_machine(hierarchy: Hierarchy) -> Iterator[str]:
    with simulated_machine(hierarchy, KMS_HOST_DATA) as address:
        yield address


@pytest.fixture(scope="module")
def signer(hierarchy: Hierarchy) -> Signer:
    return Signer(hierarchy)


class Sites:
    """Makes folders of verifiers that log in with the key that the shared OpenBao trusts, over TLS."""

    def __init__(self, hierarchy: Hierarchy, issuer: Issuer, bao: OpenBao, trusted: Verifier) -> None:
        self._hierarchy, self._issuer, self._bao, self._trusted = hierarchy, issuer, bao, trusted

    def make(self, folder: Path, machine: str) -> Site:
        url = f"https://127.0.0.1:{self._bao.tls_port}"
        site = make_attesting_site(folder, self._hierarchy, self._issuer, machine, url)
        shutil.copy(self._trusted.site.folder / "signing.pem", site.folder / "signing.pem")
        (site.folder / "vault.crt").write_text(self._bao.ca)
        site.settings["vault"]["ca"] = "vault.crt"
        return site


@pytest.fixture(scope="module")
def sites(hierarchy: Hierarchy, issuer: Issuer, bao: OpenBao, verifier_process: Verifier) -> Sites:
    return Sites(hierarchy, issuer, bao, verifier_process)


@pytest.fixture(scope="module")
def kms(tmp_path_factory: pytest.TempPathFactory, sites: Sites, kms_machine: str, signer: Signer) -> Iterator[Verifier]:
    """The verifier that the plans name."""
    site = sites.make(tmp_path_factory.mktemp("kms"), kms_machine)
    signer.sign(site, serial=7)
    with verifier(site) as running:
        yield running


def use(pod: Pod, running: Verifier, attest: VerifierAttest) -> None:
    """The pod's plan names this verifier and demands its proof."""
    ca = (running.site.folder / "ca.crt").read_text()
    changed = pod.plan.verifier._replace(url=f"https://127.0.0.1:{running.port}", ca=ca, attest=attest)
    pod.change(verifier=changed, secrets=FILE)


def heard_nothing(running: Verifier) -> None:
    """The verifier knows of no pod: no attestation, no login, no bearer, of whatever outcome."""
    assert not running.events("attestation")
    assert not running.events("login")
    assert running.site.records() == []


def test_a_pod_gets_its_secrets_from_the_verifier_that_it_was_told_to_trust(
    pod: Pod, kms: Verifier, signer: Signer
) -> None:
    """Vault's CA in the plan is of last year; the verifier's counts."""
    use(pod, kms, signer.demand(7))
    pod.change(vault=pod.plan.vault._replace(ca=make_pair()[0].decode()))
    ended = pod.run()
    assert ended.code == 0, ended.stderr
    assert (pod.secrets / "password").read_text().startswith(CANARY)
    names = [each["event"] for each in ended.events]
    assert names.index("verifier_attested") < names.index("attested")
    assert ended.named("vault_ca_replaced")
    assert ended.named("verifier_attested")[0]["serial"] == 7


def test_a_balancer_that_ends_tls_learns_nothing(
    pod: Pod, sites: Sites, kms_machine: str, signer: Signer, tmp_path: Path
) -> None:
    """Its certificate is by the plan's CA, and the real verifier's honest answer passes through it."""
    site = sites.make(_made(tmp_path / "verifier"), kms_machine)
    signer.sign(site, serial=7)
    with verifier(site) as running:
        ca = (site.folder / "ca.crt").read_text()
        with front(tmp_path / "front", (running.port, ca), never) as between:
            use(pod, running, signer.demand(7))
            pod.change(verifier=pod.plan.verifier._replace(url=between.url, ca=between.ca))
            refused(pod.run(), Exit.VERIFIER_NOT_ATTESTED, "verifier-spki")
        asked_only(between)
        heard_nothing(running)
    assert pod.published() == []


def test_a_workload_pod_of_the_same_image_cannot_pose_as_the_verifier(
    pod: Pod, sites: Sites, machine: str, signer: Signer, tmp_path: Path
) -> None:
    """It has a certificate of the plan's CA and the signed values, but HOST_DATA of a workload."""
    site = sites.make(_made(tmp_path / "poser"), machine)
    signer.sign(site, serial=7)
    with verifier(site) as poser:
        use(pod, poser, signer.demand(7))
        event = refused(pod.run(), Exit.VERIFIER_NOT_ATTESTED, "verifier-not-attested")
        assert "guest/host-data" in event["detail"]
        heard_nothing(poser)


def _other_vault(site: Site, _: Path) -> None:
    (site.folder / "vault.crt").write_text(make_pair()[0].decode())


def _other_root(site: Site, folder: Path) -> None:
    """A root whose keys the host has: every guest that it makes up would be genuine."""
    other = open_hierarchy(folder)
    site.settings["certificates"] |= {"simulatedRoot": str(other.root_path), "crls": [str(other.crl_path)]}


@pytest.mark.parametrize("swap", [_other_vault, _other_root])
def test_a_verifier_whose_configuration_the_host_swapped_is_told_nothing(
    pod: Pod, sites: Sites, kms_machine: str, signer: Signer, tmp_path: Path, swap: Callable[[Site, Path], None]
) -> None:
    """The host's ConfigMap names another Vault CA or root; guest, key and signed values are the KMS's own."""
    site = sites.make(_made(tmp_path / "swapped"), kms_machine)
    signer.sign(site, serial=7)
    swap(site, _made(tmp_path / "other"))
    with verifier(site) as running:
        use(pod, running, signer.demand(7))
        refused(pod.run(), Exit.VERIFIER_NOT_ATTESTED, "verifier-configuration")
        heard_nothing(running)


def test_signed_values_of_an_earlier_serial_are_refused(pod: Pod, kms: Verifier, signer: Signer) -> None:
    use(pod, kms, signer.demand(8))
    refused(pod.run(), Exit.VERIFIER_NOT_ATTESTED, "verifier-references")


def test_another_signers_values_are_refused(pod: Pod, kms: Verifier, hierarchy: Hierarchy) -> None:
    use(pod, kms, Signer(hierarchy).demand(7))
    refused(pod.run(), Exit.VERIFIER_NOT_ATTESTED, "verifier-references")


def test_a_verifier_that_proves_nothing_is_told_nothing(pod: Pod, verifier_process: Verifier, signer: Signer) -> None:
    """It serves only plans that do not demand it."""
    before = len(verifier_process.events("attestation"))
    use(pod, verifier_process, signer.demand(7))
    refused(pod.run(), Exit.VERIFIER_NOT_ATTESTED, "verifier-no-evidence")
    assert len(verifier_process.events("attestation")) == before


class Hold:
    """A relay that lets a connection's handshake pass, and holds what its client says after it until `release`."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.holds, self.release = threading.Event(), threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self.release.set()
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            near, _ = self._listener.accept()
            far = socket.create_connection(("127.0.0.1", self._target))
            threading.Thread(target=self._relay, args=(far, near), daemon=True).start()
            self._forward_records(near, far)

    def _forward_records(self, near: socket.socket, far: socket.socket) -> None:
        """TLS 1.3 (RFC 8446, 5.1): a client's first encrypted record is its Finished, the next its first request."""
        encrypted = 0
        with near.makefile("rb") as records:
            while header := records.read(5):
                body = records.read(int.from_bytes(header[3:], "big"))
                encrypted += header[0] == 23
                if encrypted == 2:
                    self.holds.set()
                    self.release.wait()
                far.sendall(header + body)
        with contextlib.suppress(OSError):
            far.shutdown(socket.SHUT_WR)

    @staticmethod
    def _relay(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)


def test_a_certificate_that_is_rotated_between_handshake_and_answer_stops_no_pod(
    pod: Pod, sites: Sites, kms_machine: str, signer: Signer, tmp_path: Path
) -> None:
    """The verifier's report binds the key that this very handshake showed, not the newest."""
    site = sites.make(_made(tmp_path / "verifier"), kms_machine)
    signer.sign(site, serial=7)
    with verifier(site) as running:
        address = ("127.0.0.1", running.port)
        old = ssl.get_server_certificate(address)
        hold = Hold(running.port)
        use(pod, running, signer.demand(7))
        # The verifier looks at its certificate from time to time, and the pod waits for that.
        pod.change(deadline_seconds=900)
        pod.code = "import sidecar.http\nsidecar.http.ATTEMPT_SECONDS = 300.0\n"
        pod.change(verifier=pod.plan.verifier._replace(url=f"https://127.0.0.1:{hold.port}"))
        process = pod.start()
        assert hold.holds.wait(120)
        write_pair(site.folder)
        until(lambda: ssl.get_server_certificate(address) != old)
        hold.release.set()
        ended = pod.end(process)
        hold.close()
    assert ended.code == 0, ended.stderr
    assert len(ended.named("verifier_attested")) == 1
    assert not ended.named("retry")


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
