"""The sidecar: process start to published secrets, and the most memory it held, beside `bao agent`.

Both get the same secret from the same OpenBao over TLS and write it to a file on tmpfs; both log in with a JWT under
the same role. Ours gets there by attestation (simulated evidence, a real verifier), and gives its token back before it
ends; OpenBao's agent finds its JWT in a file. When something is published is when its file says so, on the kernel's
clock, which ticks every few milliseconds. With more processes than processors, processor time is what counts, and it
is printed; a process with many threads, as the agent is, gets more of busy processors than one with a single thread.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from joserfc import jwt
from joserfc.jwk import ECKey

from attestation.simulator.hierarchy import open_hierarchy
from kbs.verifier_attest import VerifierAttest
from plan import layout
from plan.codec import write_plan
from plan.document import EvidenceSource, Plan, SecretFile, Vault, Workload
from plan.document import Verifier as VerifierPlan
from tests.attestation.kms import KMS_HOST_DATA
from tests.attestation.verifier.attesting import Signer
from tests.attestation.verifier.process import HOST_DATA, Site, Verifier, make_site, policy, verifier
from tests.attestation.verifier.tokens import Issuer
from tests.sidecar.pod import HOME, Pod
from tests.support.exec_helper import build_helper
from tests.support.openbao import MOUNT, ROLE, binary
from tests.support.paths import ROOT
from tests.support.raft import RaftOpenBao, raft_openbao
from tests.support.simulated_machine import simulated_machine

_HERE = Path(__file__).parent
_LEVELS = {1: 15, 25: 3, 50: 3, 75: 3}  # processes at once -> rounds; the levels are those of the paper
_STAGES_RUNS = 15
_MODULES = 15
_PACKAGES = {
    "ours": frozenset({"attestation", "kbs", "logline", "plan", "sidecar"}),
    "cryptography": frozenset({"_cffi_backend", "_openssl", "cryptography"}),
    "the standard library": frozenset(sys.stdlib_module_names),
}
_PROOF_RUNS = 25
_REPORT_MILLISECONDS = 30  # of the verifier's own machine
_PROCESSORS = os.cpu_count() or 1
SECRET = f"{HOME}/db"
# As the image starts it: isolated and without `site`, packages after the standard library.
_PATHS = [str(ROOT), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
_PYTHON = os.path.realpath(sys.executable)
_START = """
import gc
import sys
gc.disable()
sys.path += sys.argv[3].split(":")
import os
from pathlib import Path
from sidecar.main import run
from sidecar.paths import PodPaths
root, helper = map(Path, sys.argv[1:3])
sys.exit(run(os.environ, PodPaths(root / "secrets", root / "run", root / "token", helper, root / "last-words")))
"""
_AGENT = """
exit_after_auth = true
vault {{
  address = "{url}"
  ca_cert = "{ca}"
}}
auto_auth {{
  method "jwt" {{
    mount_path = "auth/{mount}"
    config = {{
      path = "{folder}/jwt"
      role = "{role}"
      remove_jwt_after_reading = false
    }}
  }}
}}
template {{
  destination = "{folder}/password"
  perms = "0440"
  contents = "{{{{ with secret \\"{secret}\\" }}}}{{{{ .Data.data.password }}}}{{{{ end }}}}"
}}
"""


@dataclass
class Run:
    """One process; milliseconds, but for `started` since its start."""

    started: float
    published: float
    ended: float
    resident_mb: float
    processor: float


Rounds = Sequence[Sequence[Run]]


def main() -> None:
    """Beside `bao agent` at each level; then what the verifier's proof adds."""
    with tempfile.TemporaryDirectory(dir=_memory_backed()) as name, ExitStack() as stack:
        setting = stack.enter_context(_setting(Path(name)))
        spawner = stack.enter_context(_spawner())
        for makers in (setting.ours, setting.agents):
            _at_once(spawner, makers(2))  # bytecode and page cache
        for level, rounds in _LEVELS.items():
            ours: list[list[Run]] = []
            theirs: list[list[Run]] = []
            for _ in range(rounds):
                ours.append(_at_once(spawner, setting.ours(level)))
                theirs.append(_at_once(spawner, setting.agents(level)))
            _print_level(level, ours, theirs)
        _measure_proof(spawner, setting)


def stages() -> None:
    """Where our milliseconds go: by stage of a run, and by the module that is imported."""
    with tempfile.TemporaryDirectory(dir=_memory_backed()) as name, _setting(Path(name)) as setting:
        setting.stages()  # bytecode and page cache
        _print_stages([setting.stages() for _ in range(_STAGES_RUNS)])
        _print_imports([setting.imports() for _ in range(_STAGES_RUNS)])


def _measure_proof(spawner: subprocess.Popen[str], setting: Setting) -> None:
    """One pod at a time, with and without the demand in turn; a report of the verifier's takes 30 ms."""
    plain: list[Run] = []
    proving: list[Run] = []
    for _ in range(_PROOF_RUNS):
        plain += _at_once(spawner, setting.ours(1))
        proving += _at_once(spawner, setting.ours(1, proof=True))
    added = statistics.median(
        with_proof.published - without.published for with_proof, without in zip(proving, plain, strict=True)
    )
    processor = [statistics.median(run.processor for run in runs) for runs in (plain, proving)]
    print(
        f"the verifier attested first, {_PROOF_RUNS} pairs: {_middle(plain):.0f} ms without, {_middle(proving):.0f} ms"
        f" with, {added:.0f} ms added (median of pairs), {added - _REPORT_MILLISECONDS:.0f} ms beyond one report of"
        f" {_REPORT_MILLISECONDS} ms; budget 40 ms; processor {processor[0]:.0f} and {processor[1]:.0f} ms"
    )


def _print_level(level: int, ours: Rounds, theirs: Rounds) -> None:
    print(f"{level} at once on {_PROCESSORS} processors, start to published, {level * len(ours)} runs each")
    for name, rounds in (("morphisms-init", ours), ("bao agent", theirs)):
        runs = [run for each in rounds for run in each]
        published = [run.published for run in runs]
        print(
            f"  {name:14} p50 {_percentile(published, 50):7,.0f} ms, p99 {_percentile(published, 99):7,.0f} ms,"
            f" ended p50 {_percentile([run.ended for run in runs], 50):7,.0f} ms;"
            f" processor {statistics.median(run.processor for run in runs):4.0f} ms each,"
            f" {100 * statistics.median(map(_share, rounds)):3.0f} % of all there was;"
            f" resident p50 {_percentile([run.resident_mb for run in runs], 50):3.0f} MB,"
            f" most {max(run.resident_mb for run in runs):3.0f} MB"
        )
    ratios = sorted(_middle(mine) / _middle(others) for mine, others in zip(ours, theirs, strict=True))
    print(
        f"  ratio: time {statistics.median(ratios):.2f}x (rounds {', '.join(f'{each:.2f}' for each in ratios)}),"
        f" processor {_ratio(ours, theirs, 'processor'):.2f}x, memory {_ratio(ours, theirs, 'resident_mb'):.2f}x;"
        " budget 0.85x of the time, 0.50x of the memory"
    )


def _ratio(ours: Rounds, theirs: Rounds, field: str) -> float:
    mine, others = ([getattr(run, field) for each in rounds for run in each] for rounds in (ours, theirs))
    return float(statistics.median(mine) / statistics.median(others))


def _share(runs: Sequence[Run]) -> float:
    """Of the processors' time while they ran: where many run and this is far below 1, others slowed them down."""
    wall = max(run.started + run.ended for run in runs) - min(run.started for run in runs)
    return sum(run.processor for run in runs) / (wall * _PROCESSORS)


def _print_stages(runs: Sequence[dict[str, float]]) -> None:
    """The least of all runs, which other programs on the machine have lengthened least; so they need not add up."""
    names = list(dict.fromkeys(name for run in runs for name in run))
    before = [sum(spent for name, spent in run.items() if name != "revocation") for run in runs]
    print(f"where the milliseconds go, {min(before):.0f} ms to the publication; {len(runs)} runs, the least of each")
    for name in names:
        print(f"  {name:52} {min(run.get(name, 0.0) for run in runs):6.1f} ms")


def _print_imports(runs: Sequence[Mapping[str, float]]) -> None:
    """Each module's own time, without what it imports; the interpreter's noting of it is in every figure."""
    own = {name: min(run[name] for run in runs) for name in runs[0]}
    print(f"imports, {len(own)} modules, {sum(own.values()):.0f} ms")
    for whose, packages in _PACKAGES.items():
        each = [spent for name, spent in own.items() if name.partition(".")[0] in packages]
        print(f"  {whose:52} {sum(each):6.1f} ms, {len(each)} modules")
    print("those of the most time")
    for name in sorted(own, key=own.__getitem__, reverse=True)[:_MODULES]:
        print(f"  {name:52} {own[name]:6.1f} ms")


def _percentile(values: Sequence[float], percent: int) -> float:
    """The value that so many percent do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, -(-len(ordered) * percent // 100) - 1)]


def _middle(runs: Sequence[Run]) -> float:
    return _percentile([run.published for run in runs], 50)


# --- processes ----------------------------------------------------------------------------------------------------

Job = tuple[dict[str, Any], Path]  # what `spawn` is told, and the file whose time is the publication's


@contextmanager
def _spawner() -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [_PYTHON, "-IS", str(_HERE / "spawn.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.communicate()


def _at_once(spawner: subprocess.Popen[str], jobs: Sequence[Job]) -> list[Run]:
    assert spawner.stdin is not None
    assert spawner.stdout is not None
    spawner.stdin.write(json.dumps([job for job, _ in jobs]) + "\n")
    spawner.stdin.flush()
    runs = []
    for (job, file), answer in zip(jobs, json.loads(spawner.stdout.readline()), strict=True):
        if answer["code"] != 0:
            raise RuntimeError(f"{job['argv'][0]} ended with {answer['code']}: {Path(job['stderr']).read_text()}")
        runs.append(
            Run(
                started=answer["start"] * 1000,
                published=(file.stat().st_mtime - answer["start"]) * 1000,
                ended=(answer["end"] - answer["start"]) * 1000,
                resident_mb=answer["resident_mb"],
                processor=answer["processor"] * 1000,
            )
        )
    return runs


# --- what both meet -----------------------------------------------------------------------------------------------


@dataclass
class Setting:
    """One OpenBao, one verifier, one simulated machine."""

    folder: Path
    bao: RaftOpenBao
    plan: Plan
    helper: Path
    issuer: Issuer
    jwt: str
    demand: VerifierAttest

    def ours(self, count: int, *, proof: bool = False) -> list[Job]:
        """So many pods; with `proof` the verifier has to prove itself first."""
        jobs = []
        for _ in range(count):
            pod = self._pod()
            if proof:
                pod.change(verifier=pod.plan.verifier._replace(attest=self.demand))
            argv = [_PYTHON, "-IS", "-c", _START, str(pod.root), str(pod.helper), ":".join(_PATHS)]
            jobs.append((_job(pod.root, argv, {layout.PLAN_VARIABLE: write_plan(pod.plan)}), pod.run_folder / "ready"))
        return jobs

    def agents(self, count: int) -> list[Job]:
        """So many of OpenBao's agents."""
        jobs = []
        for _ in range(count):
            folder = self._new_folder()
            (folder / "jwt").write_text(self.jwt)
            secret = SECRET.replace("secret/", "secret/data/", 1)
            values = {"url": self.bao.url, "ca": self.bao.ca_path, "mount": MOUNT, "role": ROLE, "secret": secret}
            (folder / "agent.hcl").write_text(_AGENT.format(folder=folder, **values))
            argv = [binary(), "agent", f"-config={folder / 'agent.hcl'}"]
            jobs.append((_job(folder, argv, {"HOME": str(folder)}), folder / "password"))
        return jobs

    def stages(self) -> dict[str, float]:
        """Milliseconds by stage of one run."""
        pod = self._pod()
        words = [_PYTHON, "-IS", str(_HERE / "stages.py"), str(time.monotonic()), ":".join(_PATHS)]
        words += [str(pod.root), str(pod.helper)]
        environment = {layout.PLAN_VARIABLE: write_plan(pod.plan)}
        done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
        answer = json.loads(done.stdout)
        if answer["code"] != 0:
            raise RuntimeError(done.stderr)
        spent: dict[str, float] = answer["spent"]
        return spent

    def imports(self) -> dict[str, float]:
        """Milliseconds of each module's own that one run imports."""
        ((job, _),) = self.ours(1)
        words = [*job["argv"][:2], "-X", "importtime", *job["argv"][2:]]
        done = subprocess.run(words, env=job["env"], capture_output=True, text=True, check=True)
        lines = [line.split("|") for line in done.stderr.splitlines() if line.startswith("import time:")]
        # The first line is the head of the columns.
        return {name.strip(): int(own.removeprefix("import time:")) / 1000 for own, _, name in lines[1:]}

    def _pod(self) -> Pod:
        uid = str(uuid4())
        pod = Pod(self._new_folder(), self.helper, self.plan, lambda: self.issuer.token(uid=uid))
        (pod.root / "token").write_text(pod.new_token())
        return pod

    def _new_folder(self) -> Path:
        folder = self.folder / "pods" / str(uuid4())
        folder.mkdir(parents=True)
        return folder


def _job(folder: Path, argv: list[str], environment: dict[str, str]) -> dict[str, Any]:
    return {"argv": argv, "env": environment, "stderr": str(folder / "stderr")}


@contextmanager
def _setting(folder: Path) -> Iterator[Setting]:
    (folder / "openbao").mkdir()
    (folder / "site").mkdir()
    (folder / "helper").mkdir()
    hierarchy, issuer = open_hierarchy(folder / "simulated"), Issuer()
    with ExitStack() as stack:
        bao = stack.enter_context(raft_openbao(folder / "openbao"))
        bao.done("POST", SECRET.replace("secret/", "secret/data/", 1), {"data": {"password": "of a bench"}})
        site = make_site(folder / "site", hierarchy, issuer, bao.url)
        site.settings["vault"]["ca"] = str(bao.ca_path)
        site.write_policy("payments", policy())
        bao.trust(site.public_keys)
        slow = ("--report-milliseconds", str(_REPORT_MILLISECONDS))
        own_machine = stack.enter_context(simulated_machine(hierarchy, KMS_HOST_DATA, *slow))
        site.settings["attest"] = {"sources": [{"source": "simulated", "address": own_machine}]}
        signer = Signer(hierarchy)
        signer.sign(site)
        running = stack.enter_context(verifier(site))
        machine = stack.enter_context(simulated_machine(hierarchy, HOST_DATA))
        plan = plan_of_a_pod(machine, running, bao)
        yield Setting(folder, bao, plan, build_helper(folder / "helper"), issuer, _jwt(site), signer.demand())


def plan_of_a_pod(machine: str, running: Verifier, bao: RaftOpenBao) -> Plan:
    """A pod that gets one secret as a file."""
    ca = (running.site.folder / "ca.crt").read_text()
    return Plan(
        workload=Workload("prod", "shop", "payments", "default"),
        evidence=(EvidenceSource("simulated", machine),),
        verifier=VerifierPlan(f"https://127.0.0.1:{running.port}", ca, "morphisms-verifier", ""),
        vault=Vault(bao.url, bao.ca, "", (("secret", 2),)),
        secrets=(SecretFile("password", SECRET, "password", key="password"),),
    )


def _jwt(site: Site) -> str:
    """As the verifier mints it for this workload, but for an hour: an agent has no evidence to offer."""
    key = ECKey.import_key((site.folder / "signing.pem").read_bytes())
    names = {"cluster": "prod", "namespace": "shop", "service": "payments", "assurance": "workload"}
    now = int(time.time())
    times = {"iat": now, "nbf": now - 5, "exp": now + 3600}
    who = {"iss": "morphisms-verifier", "aud": "vault", "sub": "prod/shop/payments"}
    return jwt.encode({"alg": "ES256"}, names | times | who, key, algorithms=["ES256"])


def _memory_backed() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


if __name__ == "__main__":
    main()
