"""`morphisms-init --doctor`: what it says of a healthy pod and of sick ones, and that it leaves nothing behind."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from attestation.simulator.hierarchy import Hierarchy
from kbs.attested import ATTESTED_PATH
from plan import layout
from plan.codec import write_plan
from plan.document import EvidenceSource, SecretFile
from sidecar.reasons import Exit
from tests.attestation.kms import Kms
from tests.attestation.verifier.process import Verifier
from tests.sidecar.pod import CANARY, HOME, START, Pod
from tests.sidecar.proving_front import Played, played
from tests.support.openbao import OpenBao
from tests.support.paths import ROOT
from tests.support.processes import morphisms

DB = f"{HOME}/db"
HEALTHY = [
    r"ok    plan          for prod/shop/payments: 1 files, 0 variables, agent init",
    r"ok    evidence      simulated at http://127\.0\.0\.1:\d+ gives reports - SIMULATED: they prove nothing about any"
    r" machine",
    r"ok    pod token     for morphisms-verifier, expires in \d+ s",
    r"ok    volume        \S+/secrets can be written",
    r"ok    volume        \S+/run can be written",
    r"ok    verifier      https://127\.0\.0\.1:\d+ is trusted and gives a nonce",
    r"ok    clock         within \d s of the verifier's",
    r"ok    Vault         https://127\.0\.0\.1:\d+ is trusted and unsealed",
    r"ok    clock         within \d s of Vault's",
    r"ok    attestation   accepted, assurance workload, SIMULATED; a Vault token for 600 s; "
    r"morphisms explain [0-9a-f]{16}",
    rf"ok    secret        {DB} can be read, 4 keys",
    r"ok    contents      1 files would be published; nothing was",
]


@dataclass
class Said:
    code: int
    stdout: str
    stderr: str

    def failures(self) -> list[str]:
        return [line for line in self.stdout.splitlines() if line.startswith("FAIL")]


def doctor(pod: Pod, *, plan: bool = True) -> Said:
    (pod.root / "token").write_text(pod.new_token())
    environment = {layout.PLAN_VARIABLE: write_plan(pod.plan)} if plan else {}
    script = START.replace("places))", 'places, "doctor"))')
    assert '"doctor"' in script
    words = [sys.executable, "-c", script, str(pod.root), str(pod.helper)]
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    said = Said(done.returncode, done.stdout, done.stderr)
    for text in (CANARY, "hvs.", "s.ey", "eyJ", "Traceback"):
        assert text not in said.stdout + said.stderr
    assert [each for folder in (pod.secrets, pod.run_folder) if folder.exists() for each in folder.iterdir()] == []
    return said


@pytest.fixture
def healthy(pod: Pod) -> Pod:
    pod.change(secrets=(SecretFile("db", DB, "db"),))
    return pod


def accessors(bao: OpenBao) -> set[str]:
    status, answer = bao.call("LIST", "auth/token/accessors")
    assert status == 200
    return set(answer["data"]["keys"])


def test_a_healthy_pod_is_told_so_step_by_step_and_no_token_stays(healthy: Pod, bao: OpenBao) -> None:
    before = accessors(bao)
    said = doctor(healthy)
    lines = [line for line in said.stdout.splitlines() if "not configured" not in line]
    for line, expected in zip(lines, HEALTHY, strict=True):
        assert re.fullmatch(expected, line), line
    assert said.code == 0
    assert accessors(bao) <= before


def test_pod_and_operator_read_one_story(healthy: Pod, verifier_process: Verifier, tampering_machine: str) -> None:
    healthy.change(evidence=(EvidenceSource("simulated", tampering_machine),))
    said = doctor(healthy)
    (line,) = said.failures()
    found = re.search(r"attestation .*\[verifier-refused, correlation id ([0-9a-f]{16})\]", line)
    assert found, line
    assert said.code == 12
    words = morphisms("explain", found[1], "--config", str(verifier_process.site.folder / "verifier.yaml"))
    story = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert "attest  REFUSED: verdict" in story.stdout
    assert "signature/report: FAILED" in story.stdout


def test_a_missing_secret_is_one_failure_beside_those_that_are_there(healthy: Pod) -> None:
    healthy.change(secrets=(*healthy.plan.secrets, SecretFile("gone", f"{HOME}/never-written", "gone")))
    said = doctor(healthy)
    (line,) = said.failures()
    assert f"{HOME}/never-written is not in Vault" in line
    assert f"ok    secret        {DB} can be read" in said.stdout
    assert "not checked: a secret is missing" in said.stdout
    assert said.code == 16


def test_a_missing_key_is_a_failure_of_the_contents(healthy: Pod) -> None:
    healthy.change(secrets=(SecretFile("db", DB, "db", key="nothing"),))
    assert any("contents" in line and "nothing" in line for line in doctor(healthy).failures())


def test_a_missing_volume_is_a_failure_of_its_own(healthy: Pod) -> None:
    healthy.run_folder.rmdir()
    assert any("volume" in line and "/run does not exist" in line for line in doctor(healthy).failures())


def test_servers_that_are_not_there_or_not_trusted_are_each_named(healthy: Pod) -> None:
    plan = healthy.plan
    healthy.change(
        verifier=plan.verifier._replace(url="https://127.0.0.1:1"),
        vault=plan.vault._replace(ca=plan.verifier.ca),
    )
    said = doctor(healthy)
    text = "\n".join(said.failures())
    assert "FAIL  verifier      cannot reach the verifier at 127.0.0.1:1" in text
    assert "the plan's CA does not vouch for" in text
    assert said.code == 13


def test_without_a_plan_only_the_guest_is_looked_at(healthy: Pod) -> None:
    said = doctor(healthy, plan=False)
    assert said.code == 0
    assert said.stdout.startswith("-     plan          none in the environment")
    assert "attestation" not in said.stdout


def test_the_command_knows_the_option(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "sidecar.main"]
    shown = subprocess.run([*words, "--help"], cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert "--doctor" in shown.stdout
    refused = subprocess.run([*words, "--doctor", "x"], cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert (refused.returncode, "usage" in refused.stderr) == (10, True)


def test_a_failure_after_the_attestation_names_its_correlation_id(healthy: Pod, verifier_process: Verifier) -> None:
    healthy.change(secrets=(SecretFile("gone", f"{HOME}/never-written", "gone"),))
    ended = healthy.run()
    found = re.search(r"\[secret-missing, correlation id ([0-9a-f]{16})\]", ended.last_words)
    assert found, ended.last_words
    assert ended.named("attested")[0]["correlation_id"] == found[1]
    words = morphisms("explain", found[1], "--config", str(verifier_process.site.folder / "verifier.yaml"))
    story = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=600).stdout
    assert story.count("believed: believed") == 2, "the attestation and the login"


PROOF = (
    r"ok    proof         the verifier runs in guest kms, reference values of serial 7, SIMULATED: it proves nothing"
)


def test_the_doctor_says_how_the_verifier_proved_itself(
    healthy: Pod, hierarchy: Hierarchy, verifier_process: Verifier, tmp_path: Path
) -> None:
    kms = Kms(hierarchy)
    with played(tmp_path / "front", (verifier_process.port, healthy.plan.verifier.ca), Played(kms)) as fronted:
        verifier = healthy.plan.verifier._replace(url=fronted.url, ca=fronted.ca, attest=kms.by_signer)
        healthy.change(verifier=verifier)
        said = doctor(healthy)
    assert said.code == 0, said.stdout
    lines = said.stdout.splitlines()
    assert re.match(PROOF, lines[5])
    assert [re.match(pattern, line) for pattern, line in zip(HEALTHY, lines[:5] + lines[6:], strict=True)]


def test_the_doctor_names_the_check_that_the_verifier_fails_and_tells_it_nothing(
    healthy: Pod, hierarchy: Hierarchy, verifier_process: Verifier, tmp_path: Path
) -> None:
    kms = Kms(hierarchy)
    other = Played(kms, lambda kms: replace(kms, host_data=b"w" * 32))
    with played(tmp_path / "front", (verifier_process.port, healthy.plan.verifier.ca), other) as fronted:
        verifier = healthy.plan.verifier._replace(url=fronted.url, ca=fronted.ca, attest=kms.by_signer)
        healthy.change(verifier=verifier)
        said = doctor(healthy)
    assert said.code == Exit.VERIFIER_NOT_ATTESTED
    (failure,) = said.failures()
    assert "guest/host-data" in failure
    assert failure.endswith("[verifier-not-attested]")
    assert fronted.paths() == [ATTESTED_PATH]
