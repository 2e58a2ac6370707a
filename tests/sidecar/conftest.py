"""One OpenBao over TLS, one simulated machine's process, one verifier's process and one helper for all tests."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from attestation.simulator.hierarchy import Hierarchy, open_hierarchy
from plan.document import EvidenceSource, Plan, Vault, Workload
from plan.document import Verifier as VerifierPlan
from tests.attestation.verifier.conftest import make_site
from tests.attestation.verifier.process import HOST_DATA, Verifier, policy, verifier
from tests.attestation.verifier.tokens import Issuer
from tests.sidecar.exec.conftest import build
from tests.sidecar.pod import CANARY, HOME, Pod
from tests.support import packages
from tests.support.openbao import OpenBao, openbao
from tests.support.paths import ROOT
from tests.support.processes import morphisms


@pytest.fixture(scope="session")
def bao(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenBao]:
    with openbao(tmp_path_factory.mktemp("openbao")) as server:
        server.done("POST", "sys/mounts/old", {"type": "kv", "options": {"version": "1"}})
        policy = f'path "old/*" {{ capabilities = ["read"] }}\npath "{v2(HOME)}/*" {{ capabilities = ["read"] }}'
        write_secret(server, "db", {"user": "alice", "password": f"{CANARY}-one"})
        write_secret(server, "db", {"user": "alice", "password": f"{CANARY}-two", "port": 5432, "tls": True})
        server.done("POST", "old/shop", {"key": f"{CANARY}-old"})
        server.done("PUT", "sys/policies/acl/tests", {"policy": policy})
        yield server


def v2(path: str) -> str:
    mount, _, rest = path.partition("/")
    return f"{mount}/data/{rest}"


def write_secret(server: OpenBao, name: str, data: object) -> None:
    server.done("POST", f"{v2(HOME)}/{name}", {"data": data})


@pytest.fixture(scope="session")
def hierarchy(tmp_path_factory: pytest.TempPathFactory) -> Hierarchy:
    return open_hierarchy(tmp_path_factory.mktemp("simulated"))


def start_machine(hierarchy: Hierarchy, *options: str) -> Iterator[str]:
    """`morphisms simulated-hardware`; its address."""
    folder = str(hierarchy.root_path.parent)
    words = morphisms("simulated-hardware", "--dir", folder, "--listen", "127.0.0.1:0")
    words += ["--host-data", HOST_DATA.hex(), *options]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=ROOT, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("listening on "), "the simulated machine did not start"
    yield line.split()[-1]
    process.terminate()
    process.wait(20)
    process.stdout.close()


@pytest.fixture(scope="session")
def machine(hierarchy: Hierarchy) -> Iterator[str]:
    yield from start_machine(hierarchy)


@pytest.fixture(scope="session")
def tampering_machine(hierarchy: Hierarchy) -> Iterator[str]:
    yield from start_machine(hierarchy, "--tamper", "signature")


@pytest.fixture(scope="session")
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture(scope="session")
def judge(
    tmp_path_factory: pytest.TempPathFactory, hierarchy: Hierarchy, issuer: Issuer, bao: OpenBao
) -> Iterator[Verifier]:
    """The real verifier, whose policy lets the pod have its secrets."""
    site = make_site(tmp_path_factory.mktemp("verifier"), hierarchy, issuer, bao.url)
    site.write_policy("payments", policy())
    bao.trust(site.public_keys)
    bao.write_role(token_policies=["knative", "tests"])
    with verifier(site) as process:
        yield process


@pytest.fixture(scope="session")
def helper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The exec helper as an image carries it."""
    packages.require_c_compiler()
    return build(tmp_path_factory.mktemp("helper"))


@pytest.fixture
def pod(tmp_path: Path, helper: Path, bao: OpenBao, machine: str, judge: Verifier, issuer: Issuer) -> Pod:
    """A pod whose plan names no secret yet."""
    plan = Plan(
        workload=Workload("prod", "shop", "payments", "default"),
        evidence=(EvidenceSource("simulated", machine),),
        verifier=VerifierPlan(
            f"https://127.0.0.1:{judge.port}", (judge.site.folder / "ca.crt").read_text(), "morphisms-verifier", ""
        ),
        vault=Vault(f"https://127.0.0.1:{bao.tls_port}", bao.ca, "", (("old", 1), ("secret", 2))),
        deadline_seconds=20,
    )
    # A pod of its own each time: the verifier bounds how often one pod may ask.
    return Pod(tmp_path, helper, plan, lambda: issuer.token(uid=str(uuid4())))
