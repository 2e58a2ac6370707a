"""One OpenBao over TLS, one simulated machine's process, one verifier's process and one helper for all tests."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from attestation.simulator.hierarchy import Hierarchy
from plan.document import EvidenceSource, Plan, Vault, Workload
from plan.document import Verifier as VerifierPlan
from tests.attestation.verifier.process import HOST_DATA, Verifier, make_site, policy, verifier
from tests.attestation.verifier.tokens import Issuer
from tests.sidecar.clock import Clock
from tests.sidecar.pod import CANARY, HOME, Pod
from tests.sidecar.secrets import v2, write_secret
from tests.support.openbao import OpenBao, openbao
from tests.support.simulated_machine import simulated_machine


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


@pytest.fixture(scope="session")
def tampering_machine(hierarchy: Hierarchy) -> Iterator[str]:
    with simulated_machine(hierarchy, HOST_DATA, "--tamper", "signature") as address:
        yield address


@pytest.fixture(scope="session")
def verifier_process(
    tmp_path_factory: pytest.TempPathFactory, hierarchy: Hierarchy, issuer: Issuer, bao: OpenBao
) -> Iterator[Verifier]:
    """The real verifier, whose policy lets the pod have its secrets."""
    site = make_site(tmp_path_factory.mktemp("verifier"), hierarchy, issuer, bao.url)
    site.settings["vault"]["timeoutSeconds"] = 10.0  # the most: nothing here is about a Vault that is slow
    site.write_policy("payments", policy())
    bao.trust(site.public_keys)
    bao.write_role(token_policies=["knative", "tests"])
    with verifier(site) as process:
        yield process


_numbers = itertools.count()


@pytest.fixture
def name() -> str:
    """A process' name that no other process of this machine has, nor one of another test that is still ending.

    The kernel keeps 15 letters of one.
    """
    return f"app{os.getpid()}n{next(_numbers)}x"


@pytest.fixture
def clock(pod: Pod) -> Clock:
    """The pod's, which the test moves."""
    return pod.move_clock()


@pytest.fixture
def pod(tmp_path: Path, helper: Path, bao: OpenBao, machine: str, verifier_process: Verifier, issuer: Issuer) -> Pod:
    """A pod whose plan names no secret yet."""
    plan = Plan(
        workload=Workload("prod", "shop", "payments", "default"),
        evidence=(EvidenceSource("simulated", machine),),
        verifier=VerifierPlan(
            f"https://127.0.0.1:{verifier_process.port}",
            (verifier_process.site.folder / "ca.crt").read_text(),
            "morphisms-verifier",
            "",
        ),
        vault=Vault(f"https://127.0.0.1:{bao.tls_port}", bao.ca, "", (("old", 1), ("secret", 2))),
        deadline_seconds=300,
    )
    # A pod of its own each time: the verifier bounds how often one pod may ask.
    return Pod(tmp_path, helper, plan, lambda: issuer.token(uid=str(uuid4())))
