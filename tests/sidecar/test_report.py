"""`morphisms-init --report`: what a report of the guest says, from the plan's sources, and never as if it were real."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from attestation.simulator.hierarchy import Hierarchy
from plan import layout
from plan.codec import write_plan
from plan.document import EvidenceSource, Plan, Vault, Verifier, Workload
from tests.attestation.verifier.process import HOST_DATA
from tests.support.paths import ROOT


@dataclass
class Said:
    code: int
    stdout: str
    stderr: str


def report(*options: str, evidence: tuple[EvidenceSource, ...] | None) -> Said:
    """Run it as a container does. No server is there but the evidence source."""
    environment = {}
    if evidence is not None:
        nowhere = Verifier("https://127.0.0.1:1", "", "morphisms-verifier", "")
        vault = Vault("https://127.0.0.1:1", "", "", ())
        plan = Plan(Workload("prod", "shop", "payments", "default"), evidence, nowhere, vault)
        environment[layout.PLAN_VARIABLE] = write_plan(plan)
    words = [sys.executable, "-m", "sidecar.main", "--report", *options]
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    return Said(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def simulated(machine: str) -> tuple[EvidenceSource, ...]:
    return (EvidenceSource("simulated", machine),)


def test_a_person_reads_what_a_guest_entry_needs(simulated: tuple[EvidenceSource, ...], hierarchy: Hierarchy) -> None:
    said = report(evidence=simulated)
    assert said.code == 0, said.stderr
    lines = dict(re.split(" {2,}", line, maxsplit=1) for line in said.stdout.splitlines()[:-1])
    assert lines["source"] == "simulated - SIMULATED: it proves nothing about any machine"
    assert lines["HOST_DATA"] == HOST_DATA.hex()
    assert re.fullmatch("[0-9a-f]{96}", lines["MEASUREMENT"])
    assert re.fullmatch(r"bootloader=\d+ tee=\d+ snp=\d+ microcode=\d+", lines["REPORTED_TCB"])
    assert lines["PRODUCT"] == "Simulated"
    assert said.stdout.splitlines()[-1].startswith("not verified: ")


def test_a_script_reads_the_same_as_json(simulated: tuple[EvidenceSource, ...]) -> None:
    said = report("--json", evidence=simulated)
    assert said.code == 0, said.stderr
    document = json.loads(said.stdout)
    assert (document["source"], document["simulated"], document["verified"]) == ("simulated", True, False)
    assert document["HOST_DATA"] == HOST_DATA.hex()
    assert set(document["REPORTED_TCB"]) == {"bootloader", "tee", "snp", "microcode"}


def test_the_plan_says_which_source_is_asked(tmp_path: Path, simulated: tuple[EvidenceSource, ...]) -> None:
    """The first that is there, and none that the plan does not name."""
    absent = EvidenceSource("configfs-tsm", str(tmp_path / "none"))
    assert report(evidence=(absent, *simulated)).code == 0
    said = report(evidence=(absent,))
    assert (said.code, said.stdout) == (11, "")
    assert "evidence-no-source" in said.stderr


def test_options_that_mean_nothing_get_the_help(simulated: tuple[EvidenceSource, ...]) -> None:
    for option in ("--text", "--doctor"):
        said = report(option, evidence=simulated)
        assert (said.code, said.stdout) == (10, "")
        assert "usage: morphisms-init" in said.stderr
