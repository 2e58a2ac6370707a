"""An OpenBao with raft storage over TLS, verifiers that share their keys, and as many pods as a test wants."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from attestation.simulator.hierarchy import Hierarchy
from plan.document import EvidenceSource, Plan, Vault, Workload
from plan.document import Verifier as VerifierPlan
from tests.attestation.verifier.process import Site, Verifier, make_site, policy, verifier
from tests.attestation.verifier.tokens import Issuer
from tests.e2e.site import PASSWORD, NewPod, write_password
from tests.sidecar.clock import Clock
from tests.sidecar.pod import Pod
from tests.support.raft import RaftOpenBao, raft_openbao


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory, hierarchy: Hierarchy, issuer: Issuer, bao: RaftOpenBao) -> Site:
    """The folder of a verifier that lets the pods have their secrets."""
    made = make_site(tmp_path_factory.mktemp("verifier"), hierarchy, issuer, bao.url)
    # The longest timeout: nothing but tests/e2e/test_replicas.py is about a Vault that is slow.
    made.settings["vault"] |= {"ca": str(bao.ca_path), "timeoutSeconds": 10.0}
    made.write_policy("payments", policy())
    bao.trust(made.public_keys)
    return made


@pytest.fixture(scope="session")
def bao(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RaftOpenBao]:
    """Whoever seals or kills it brings it back."""
    with raft_openbao(tmp_path_factory.mktemp("openbao")) as server:
        write_password(server, "one")
        yield server


@pytest.fixture(scope="session")
def verifier_process(site: Site) -> Iterator[Verifier]:
    """A verifier that nobody kills."""
    with verifier(site) as process:
        yield process


@pytest.fixture
def new_pod(
    tmp_path: Path, helper: Path, bao: RaftOpenBao, machine: str, site: Site, verifier_process: Verifier, issuer: Issuer
) -> NewPod:
    """Makes pods that want one file; each has a UID of its own, because the verifier bounds how often one may ask."""
    plan = Plan(
        workload=Workload("prod", "shop", "payments", "default"),
        evidence=(EvidenceSource("simulated", machine),),
        verifier=VerifierPlan(
            f"https://127.0.0.1:{verifier_process.port}", (site.folder / "ca.crt").read_text(), "morphisms-verifier", ""
        ),
        vault=Vault(bao.url, bao.ca, "", (("secret", 2),)),
        secrets=PASSWORD,
        deadline_seconds=300,
    )

    def make() -> Pod:
        uid = str(uuid4())
        folder = tmp_path / uid
        folder.mkdir()
        return Pod(folder, helper, plan, lambda: issuer.token(uid=uid))

    return make


@pytest.fixture
def pod(new_pod: NewPod) -> Pod:
    return new_pod()


@pytest.fixture
def clock(pod: Pod) -> Clock:
    """The pod's, which the test moves."""
    return pod.move_clock()


@pytest.fixture
def hurry(pod: Pod) -> Clock:
    """The pod's clock, which stands still but for the pod's pauses: its deadline passes by these, and at once."""
    return pod.move_clock(flows=False)


@pytest.fixture
def small_volume(pod: Pod) -> Iterator[None]:
    """The pod's secrets are on 128 KiB."""
    if os.geteuid() != 0:
        pytest.skip("a small tmpfs needs root")
    options = ["-t", "tmpfs", "-o", "size=128k,mode=2777", "tmpfs"]
    mounted = subprocess.run(["mount", *options, pod.secrets], capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"this machine mounts no tmpfs: {mounted.stderr.strip()}")
    yield
    subprocess.run(["umount", pod.secrets], check=True)
