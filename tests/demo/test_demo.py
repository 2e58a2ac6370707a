"""`make demo` runs its steps on real processes, shows no secret, leaves nothing behind, and fails on other results."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from attestation.simulator.hierarchy import Hierarchy
from demo.namespace import find_namespace
from tests.support.paths import ROOT

_CANARY = "canary-7Qw_x9dL2-mT4vB8sK1z"
_LEFT = 99

# The demo with a change to its parts that only code can make. It adopts processes that outlive their parent.
_START = """
import contextlib, ctypes, os, sys, time
from pathlib import Path
import demo.environment as environment
PR_SET_CHILD_SUBREAPER = 36
assert ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
environment.secrets.token_urlsafe = lambda _: {canary!r}
{change}
from demo.__main__ import main
code = main()
# One that was killed may still be ending.
patience = time.monotonic() + 20
with contextlib.suppress(ChildProcessError):
    while os.waitpid(-1, os.WNOHANG)[0] or time.monotonic() < patience:
        time.sleep(0.01)
    sys.exit({left})
sys.exit(code)
"""
_WRONG_ROOT = """
from attestation.simulator.hierarchy import open_hierarchy
write_site = environment.write_site
def wrong(folder, hardware, own, openbao, issuer):
    other = folder.parent / "other"
    other.mkdir()
    hardware.root = open_hierarchy(other).root_path
    return write_site(folder, hardware, own, openbao, issuer)
environment.write_site = wrong
"""
_NOTHING_TAMPERED = """
import demo.hardware as hardware
def untampered(folder, name, *options):
    return hardware.Hardware(folder, name, *(() if "--tamper" in options else options))
environment.Hardware = untampered
"""
_POLICY_FOR_ALL = """
import demo.verifier as verifier
policy = verifier._policy
verifier._policy = lambda service, account: policy(service, "unknown" if service == "newsletter" else account)
"""
_PLAIN_NODE_HAS_SNP = """
def node(folder, namespace, issuer, images, devices):
    devices = devices or {"/dev/simulated-sev-guest": folder.parent / "machine/snp-0.sock"}
    return made(folder, namespace, issuer, images, devices)
made, environment.Node = environment.Node, node
"""
_THE_SAME_GUEST = """
write_impostor = environment.write_impostor
def same(folder, site, hardware):
    import yaml
    (source,) = yaml.safe_load(site.read_text())["attest"]["sources"]
    hardware.address = source["address"]
    return write_impostor(folder, site, hardware)
environment.write_impostor = same
"""
_TALKATIVE_APPLICATION = """
import demo.image as image
talkative = Path(os.environ["TMPDIR"]).parent / "payments.sh"
talkative.write_text('#!/bin/sh\\necho "$DB_PASSWORD"\\n')
talkative.chmod(0o755)
application = image.application_image()
application.files["/app/payments"] = str(talkative)
environment.application_image = lambda: application
"""
# The keys of the simulated machine take seconds to make. Where a demo is to fail, any will do.
_KEPT_MACHINE = """
import shutil
import demo.hardware as kept
def prepared(self, folder, name, *options):
    if not (folder / "root.pem").exists():
        shutil.copytree({folder!r}, folder, dirs_exist_ok=True)
    original(self, folder, name, *options)
original, kept.Hardware.__init__ = kept.Hardware.__init__, prepared
"""
_NO_COMPILER = "environment.build_helper = lambda folder: None"
_NO_NAMESPACE = "environment.find_namespace = lambda: None"
_AS_USER = """
import demo.namespace as namespace
environment.find_namespace = lambda: namespace.Namespace(namespace._AS_USER, maps_users=False)
"""

pytestmark = pytest.mark.skipif(
    find_namespace() is None, reason="this machine allows no mount namespace; the demo says so too"
)


@dataclass
class Run:
    """A finished demo: exit code and output."""

    code: int
    stdout: str
    stderr: str

    def step(self, number: int) -> str:
        return self.stdout.partition(f"\n{number}. ")[2].partition(f"\n{number + 1}. ")[0]


def start(folder: Path, change: str = "") -> subprocess.Popen[str]:
    # In a file: as an argument it would hold the canary, and the demo would find it there.
    script = folder / "start.py"
    script.write_text(_START.format(canary=_CANARY, change=change, left=_LEFT))
    (folder / "tmp").mkdir()
    return subprocess.Popen(
        [sys.executable, script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(folder / "tmp"), "PYTHONPATH": str(ROOT)},
        text=True,
    )


def run(folder: Path, change: str = "") -> Run:
    """Run the demo; whatever its exit code, it leaves nothing behind and shows no secret."""
    process = start(folder, change)
    stdout, stderr = process.communicate(timeout=600)
    assert process.returncode != _LEFT, "a process outlived the demo"
    assert list((folder / "tmp").iterdir()) == []
    assert _CANARY not in stdout + stderr
    assert "Traceback" not in stderr
    return Run(process.returncode, stdout, stderr)


@pytest.fixture
def kept_machine(hierarchy: Hierarchy) -> str:
    """The change that lets a demo find the machine's keys."""
    return _KEPT_MACHINE.format(folder=str(hierarchy.root_path.parent))


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run(tmp_path_factory.mktemp("demo"))


def test_it_succeeds_within_120_lines(demo: Run) -> None:
    assert (demo.code, demo.stderr) == (0, "")
    assert len(demo.stdout.splitlines()) <= 120
    assert "\x1b" not in demo.stdout
    assert "hunter2" not in demo.stdout  # in the recorded Service that is refused
    assert re.search(r"done  in \d+\.\d s; every process is stopped", demo.stdout)


def test_simulated_evidence_is_labelled(demo: Run) -> None:
    assert "SIMULATED" in demo.stdout.splitlines()[1]
    assert "attested with simulated evidence" in demo.step(4)
    assert "believed as demo/shop/payments, SIMULATED evidence" in demo.step(4)


def test_a_password_in_plain_text_is_refused(demo: Run) -> None:
    assert "refused  [secrets/plaintext-env] env DB_PASSWORD" in demo.step(1)


def test_the_secret_is_in_openbao_and_named_by_the_service(demo: Run) -> None:
    assert re.search(r"OpenBao \d+\.\S+ at https://127\.0\.0\.1:\d+: \S+/shop/payments/db written", demo.step(2))
    assert "`morphisms vault setup` made 4 changes" in demo.step(2)
    assert "value: vault:~/db#password" in demo.step(2)


def test_the_pod_is_shown_before_and_after(demo: Run) -> None:
    diff = demo.step(3)
    assert "-    DB_PASSWORD: vault:~/db#password" in diff
    for line in (
        "+runtimeClassName: kata-qemu-snp",
        "+- name: morphisms-init",
        "+  command: /morphisms/run/exec user-container -- /app/payments",
    ):
        assert f"   {line}\n" in diff
    assert "allowed  validated again" in diff


def test_the_application_gets_the_secret_as_file_and_as_variable(demo: Run) -> None:
    digests = re.findall(r"digest ([0-9a-f]{16})", demo.step(2) + demo.step(4))
    assert len(digests) == 3  # written, as file, as variable
    assert len(set(digests)) == 1
    assert "user-container  variable DB_URL holds DB_PASSWORD" in demo.step(4)
    assert "not applied on this machine: runtimeClassName, resources" in demo.step(4)


def test_a_tampered_report_is_refused(demo: Run) -> None:
    step = demo.step(5)
    identifier = re.search(r"refused  morphisms-init: .*\[verifier-refused, correlation id ([0-9a-f]{16})\]", step)
    assert identifier
    assert "verdict: signature/report not made by the leaf" in step


def test_another_workloads_token_is_refused(demo: Run) -> None:
    step = demo.step(6)
    assert "[verifier-refused, correlation id " in step
    assert "no-policy" in step
    assert "Vault refuses secret/knative/demo/shop/payments/db (HTTP 403)" in step
    assert "two logins so far: jwt-demo-demo/shop/payments and jwt-demo-demo/shop/newsletter" in step


def test_a_plain_node_is_refused_three_times(demo: Run) -> None:
    step = demo.step(7)
    assert "refused  [placement/node-name]" in step
    assert "refused  [placement/binding-target] node plain-0" in step
    assert "[evidence-no-source]" in step


def test_another_verifier_is_told_nothing_in_one_line(demo: Run) -> None:
    step = demo.step(8)
    assert "attested · guest key-server · serial 1 · simulated" in step
    (line,) = (line for line in step.splitlines() if "refused  morphisms-init" in line)
    assert "the verifier was told nothing" in line
    assert "guest/host-data" in line
    assert "references/configuration" not in step
    assert "there: refused · guest key-server" in step
    assert "failed: guest/host-data" in step


def test_it_searches_files_and_processes_for_the_secret(demo: Run) -> None:
    assert demo.step(9).count("absent") == 2
    files = re.search(r"(\d+) files \(all logs\) and (\d+) processes", demo.step(9))
    assert files
    assert int(files[1]) > 10
    assert int(files[2]) == 7  # the demo, OpenBao, verifier, webhook and three machines


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "step", "words"),
    [
        pytest.param(_WRONG_ROOT, 4, "the verifier refused this guest", id="verifier has another root"),
        pytest.param(_TALKATIVE_APPLICATION, 4, "did not get the secret", id="application prints the secret"),
        pytest.param(_NOTHING_TAMPERED, 5, "morphisms-init exited with 0, not 12", id="report is not tampered with"),
        pytest.param(_POLICY_FOR_ALL, 6, "morphisms-init exited with 14, not 12", id="a policy names the stranger"),
        pytest.param(_PLAIN_NODE_HAS_SNP, 7, "morphisms-init exited with 0, not 11", id="plain node has SNP"),
        pytest.param(_THE_SAME_GUEST, 8, "morphisms-init exited with 0, not 19", id="the other one is the same guest"),
    ],
)
def test_a_step_with_another_result_stops_the_demo_and_is_named(
    tmp_path: Path, kept_machine: str, change: str, step: int, words: str
) -> None:
    demo = run(tmp_path, kept_machine + change)
    assert demo.code == 1
    assert f"\n{step}. " in demo.stdout
    assert f"\n{step + 1}. " not in demo.stdout
    assert demo.stderr.startswith("unexpected result: ")
    assert words in demo.stderr
    assert demo.stderr.count("\n") == 1


def test_without_a_mount_namespace_it_fails_and_says_so(tmp_path: Path) -> None:
    demo = run(tmp_path, _NO_NAMESPACE)
    assert demo.code == 1
    assert "need a mount namespace" in demo.stderr


@pytest.mark.slow
def test_without_a_compiler_it_shows_the_secret_as_a_file_only_and_says_so(tmp_path: Path, kept_machine: str) -> None:
    demo = run(tmp_path, kept_machine + _NO_COMPILER)
    assert (demo.code, demo.stderr) == (0, "")
    assert "no C compiler here" in demo.step(3)
    assert "user-container  file password digest" in demo.step(4)
    assert "DB_PASSWORD" not in demo.step(4)


@pytest.mark.slow
def test_in_an_unprivileged_users_namespace_it_names_the_fields_that_it_cannot_apply(
    tmp_path: Path, kept_machine: str
) -> None:
    demo = run(tmp_path, kept_machine + _AS_USER)
    assert (demo.code, demo.stderr) == (0, "")
    assert "not applied on this machine: runtimeClassName, resources, seccompProfile, runAsUser, fsGroup" in demo.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "line_before", "makes_keys"),
    [
        (signal.SIGINT, "   One Knative Service", True),  # the simulated machine makes them at that moment
        (signal.SIGTERM, "3. ", False),
        (signal.SIGINT, "5. ", False),
    ],
)
def test_an_interrupted_demo_leaves_nothing_behind(
    tmp_path: Path, kept_machine: str, number: signal.Signals, line_before: str, makes_keys: bool
) -> None:
    process = start(tmp_path, "" if makes_keys else kept_machine)
    assert process.stdout is not None
    assert any(line.startswith(line_before) for line in process.stdout)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 130, stderr
    assert stderr.startswith("interrupted")
    assert list((tmp_path / "tmp").iterdir()) == []
