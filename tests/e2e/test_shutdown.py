"""SIGTERM at every stage, and at fifty moments that nobody chose: one version whole, and no token left behind."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from uuid import uuid4

import pytest

from kbs.messages import ATTEST_PATH, AUTH_PATH, TOKEN_PATH
from plan.document import EnvVariable, EvidenceSource, SecretFile
from sidecar.reasons import Exit
from tests.attestation.verifier.process import Verifier
from tests.attestation.verifier.tokens import Issuer
from tests.e2e.forwarder import forwarder
from tests.e2e.site import DB, write_password
from tests.sidecar.front import Request, Spoilt, front
from tests.sidecar.pod import CANARY, Ended, Pod, clean
from tests.support.raft import RaftOpenBao
from tests.support.until import until

_FILES = 20
_MOMENTS = 50
_OF_EACH = 6
_RANDOM = random.Random(50)

# Stage -> how it ends. After the last check the folder is switched, and then it is published, whatever comes.
STAGES: Final = {
    "nonce": Exit.STOPPED,
    "evidence": Exit.STOPPED,
    "verdict": Exit.STOPPED,
    "login": Exit.STOPPED,
    "read": Exit.STOPPED,
    "pause": Exit.STOPPED,
    "publication": Exit.PUBLISHED,
    "revocation": Exit.PUBLISHED,
}
_PATHS: Final = {
    "nonce": AUTH_PATH,
    "verdict": ATTEST_PATH,
    "login": TOKEN_PATH,
    "read": "/data/",
    "pause": "/data/",
    "revocation": "revoke-self",
}


@pytest.fixture
def busy_pod(pod: Pod, bao: RaftOpenBao, issuer: Issuer) -> Pod:
    """A pod with twenty files and a variable that has published its first version."""
    pod.change(
        secrets=tuple(SecretFile(f"s{n}", DB, f"folder/s{n}") for n in range(_FILES)),
        env=(EnvVariable("web", "PASSWORD", path=DB, key="password"),),
    )
    # It starts more often than the verifier lets one pod ask.
    pod.new_token = lambda: issuer.token(uid=str(uuid4()))
    write_password(bao, "first")
    assert pod.run().code == 0
    return pod


def version(pod: Pod) -> str:
    """The one version of all that is published; `ready` only where both volumes have it."""
    contents = [each.read_text() for each in (pod.secrets / "folder").iterdir()]
    assert len(contents) == _FILES
    (password,) = {json.loads(content)["password"] for content in contents}
    if (pod.run_folder / "ready").exists():
        assert pod.variables("web") == {"PASSWORD": password}
    return str(password).removeprefix(f"{CANARY}-")


def accept_end(pod: Pod, code: int, stderr: str) -> None:
    """Published, or stopped; before the interpreter is up, SIGTERM is still the kernel's business."""
    assert code in (Exit.PUBLISHED, Exit.STOPPED, -signal.SIGTERM), stderr
    ready = (pod.run_folder / "ready").exists()
    assert ready, "what was there before is never taken back"


class Terminate:
    """Sends SIGTERM when the first request of a stage has come, and before it is answered."""

    def __init__(self, path: str, answer: Spoilt | None = None) -> None:
        self._path = path
        self._answer = answer
        self._done = False
        self._started = threading.Event()

    def start(self, pod: Pod) -> subprocess.Popen[str]:
        """The pod's process, which is the one that gets the signal."""
        self._process = pod.start()
        self._started.set()
        return self._process

    def __call__(self, request: Request, _seen: Sequence[Request]) -> Spoilt | None:
        if self._path not in request.path or self._done:
            return None
        self._done = True
        if self._answer is None:
            assert self._started.wait(120)
            self._process.send_signal(signal.SIGTERM)
        return self._answer


@pytest.mark.parametrize("stage", STAGES)
def test_sigterm_at_each_stage(
    stage: str, busy_pod: Pod, verifier_process: Verifier, bao: RaftOpenBao, machine: str, tmp_path: Path
) -> None:
    before, logins = bao.accessors(), len(verifier_process.events("login"))
    write_password(bao, "second")
    # A pause is a wait for another try: the signal comes after the answer that asks for it.
    later = Spoilt(503, (("Retry-After", "400"),)) if stage == "pause" else None
    terminate = Terminate(_PATHS.get(stage, "none"), later)
    plan = busy_pod.plan
    with (
        front(tmp_path / "verifier", (verifier_process.port, plan.verifier.ca), terminate) as verifier,
        front(tmp_path / "vault", (bao.port, bao.ca), terminate) as vault,
        forwarder(int(machine.rpartition(":")[2])) as way,
    ):
        busy_pod.change(
            verifier=plan.verifier._replace(url=verifier.url, ca=verifier.ca),
            vault=plan.vault._replace(url=vault.url, ca=vault.ca),
            evidence=(EvidenceSource("simulated", f"http://127.0.0.1:{way.port}"),),
            deadline_seconds=900,
        )
        if stage == "evidence":
            way.hold()
        started = time.monotonic()
        if stage == "publication":
            busy_pod.code = _TERMINATED_WHILE_WRITING
        process = terminate.start(busy_pod)
        if stage == "evidence":
            assert way.held.wait(120)
            process.send_signal(signal.SIGTERM)
        elif stage == "pause":
            _when_it_says(process, '"retry"')
        ended = busy_pod.end(process)
        assert time.monotonic() - started < 240, "it waits for nobody"
        if stage not in ("nonce", "evidence", "verdict"):
            # A verifier that is still at it would make its token after the last look.
            until(lambda: len(verifier_process.events("login")) > logins)
    assert ended.code == STAGES[stage], ended.stderr
    assert version(busy_pod) == ("second" if ended.code == 0 else "first")
    assert (busy_pod.run_folder / "ready").exists()
    until(lambda: bao.accessors() <= before)  # the verifier revokes one that came too late for it
    clean(ended)


# The process sends it to itself: from without, a look at the folder may come too late.
_TERMINATED_WHILE_WRITING: Final = """
import os, signal
def _terminate_while_writing(mkdir):
    def made(path, *rest, **options):
        mkdir(path, *rest, **options)
        if os.path.basename(path).startswith("..2"):
            os.kill(os.getpid(), signal.SIGTERM)
    os.mkdir = made
_terminate_while_writing(os.mkdir)
"""


def _when_it_says(process: subprocess.Popen[str], words: str) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if words in line:
            process.send_signal(signal.SIGTERM)
            return
    raise AssertionError(f"it never said {words}")


def _end_with_a_signal(pod: Pod, process: subprocess.Popen[str], moment: float) -> Ended:
    # By its descriptor: a process that has ended and was waited for gives its id to somebody else.
    descriptor = os.pidfd_open(process.pid)

    def terminate() -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, signal.SIGTERM)

    timer = threading.Timer(moment, terminate)
    timer.start()
    ended = pod.end(process)
    timer.cancel()
    timer.join()
    os.close(descriptor)
    return ended


@pytest.mark.slow
def test_sigterm_at_fifty_moments(busy_pod: Pod, bao: RaftOpenBao) -> None:
    """One pod's volumes through fifty starts, so that each also has to mend what the one before has left."""
    before, known, codes = bao.accessors(), "first", Counter[int]()
    started = time.monotonic()
    assert busy_pod.run().code == 0
    within = time.monotonic() - started
    while codes.total() < _MOMENTS or min(codes[Exit.STOPPED], codes[Exit.PUBLISHED]) < _OF_EACH:
        number, moment = codes.total(), _RANDOM.uniform(0.0, within)
        assert number < 10 * _MOMENTS, f"too few of one end: {dict(codes)}"
        write_password(bao, str(number))
        process, started = busy_pod.start(), time.monotonic()
        ended = _end_with_a_signal(busy_pod, process, moment)
        took = time.monotonic() - started
        where = f"moment {moment:.3f} s of {within:.3f} s, exit code {ended.code}"
        accept_end(busy_pod, ended.code, f"{where}\n{ended.stderr}")
        clean(ended)
        seen = version(busy_pod)
        assert seen == (str(number) if ended.code == Exit.PUBLISHED else known), where
        assert bao.accessors() <= before, f"{where}: a token outlived us"
        codes[ended.code] += 1
        known = seen
        # A machine is not as quick all the time: the next moment lies within the last whole run, or a little after it.
        within = took if ended.code == Exit.PUBLISHED else 1.1 * within
    print(f"{codes.total()} moments, the last within {within:.2f} s: {dict(codes)}")
    write_password(bao, "last")
    assert busy_pod.run().code == 0
    assert version(busy_pod) == "last"
    assert [each.name for each in busy_pod.secrets.iterdir() if each.name.startswith("..")] == ["..data"]
