"""SIGTERM and SIGKILL at any moment: all is published or nothing, and no token outlives us."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from kbs.messages import TOKEN_PATH
from plan.document import EnvFrom, EnvVariable, SecretFile
from sidecar.reasons import Exit
from tests.attestation.verifier.process import Verifier
from tests.sidecar.front import Request, Spoilt, front
from tests.sidecar.pod import CANARY, HOME, Pod, clean, refused
from tests.support.openbao import OpenBao
from tests.support.until import until

DB = f"{HOME}/db"
# From before the interpreter is up until after the last revocation, on a slow machine too.
_RANDOM = random.Random(20)
MOMENTS = sorted(round(_RANDOM.uniform(0.02, 0.45), 4) for _ in range(20))


def _after(moment: float, process: subprocess.Popen[str], number: int) -> None:
    """A signal at a moment that nobody chose; one that comes after the end hits nothing, and is a case too."""
    time.sleep(moment)
    os.kill(process.pid, number)  # not yet waited for, so the id is still its own


@pytest.fixture
def busy_pod(pod: Pod) -> Pod:
    """A pod with some of everything."""
    pod.change(
        secrets=tuple(SecretFile(f"s{n}", DB, f"folder/s{n}") for n in range(20)),
        env=(EnvVariable("web", "PASSWORD", path=DB, key="password"),),
        env_from=(EnvFrom("worker", DB),),
    )
    return pod


def alive(bao: OpenBao) -> set[str]:
    """Accessors of all tokens."""
    return set(bao.done("LIST", "auth/token/accessors")["data"]["keys"])


def none_left(bao: OpenBao, before: set[str]) -> None:
    """No token outlived us; the verifier revokes one that came too late for it as soon as it hears of it."""
    until(lambda: alive(bao) <= before)


def whole_or_nothing(pod: Pod) -> None:
    """What a consumer sees that does not even look at `ready`."""
    names = pod.published()
    if "folder" in names:
        contents = {each.read_text() for each in (pod.secrets / "folder").iterdir()}
        assert len(list((pod.secrets / "folder").iterdir())) == 20
        assert {json.loads(content)["password"] for content in contents} == {f"{CANARY}-two"}
    if "env" in names:
        assert pod.variables("web") == {"PASSWORD": f"{CANARY}-two"}
        assert len(pod.variables("worker")) == 4
    if "ready" in names:
        assert names == ["env", "exec", "folder", "ready"]


@pytest.mark.parametrize("moment", MOMENTS)
def test_sigterm_at_any_moment(busy_pod: Pod, bao: OpenBao, moment: float) -> None:
    before = alive(bao)
    process = busy_pod.start()
    _after(moment, process, signal.SIGTERM)
    ended = busy_pod.end(process)
    whole_or_nothing(busy_pod)
    clean(ended)
    none_left(bao, before)
    names = busy_pod.published()
    if ended.code == Exit.PUBLISHED:
        assert "ready" in names
    else:
        assert ended.code in (Exit.STOPPED, -signal.SIGTERM), ended.stderr  # the latter: Python had not started
        assert names == []
        assert not list(busy_pod.secrets.iterdir())


@pytest.mark.parametrize("moment", MOMENTS[::2])
def test_sigkill_never_leaves_half(busy_pod: Pod, moment: float) -> None:
    process = busy_pod.start()
    _after(moment, process, signal.SIGKILL)
    busy_pod.end(process)
    whole_or_nothing(busy_pod)
    assert busy_pod.run().code == 0, "the next start mends what it finds"
    whole_or_nothing(busy_pod)
    assert "ready" in busy_pod.published()


def test_sigterm_while_the_verifier_logs_in_waits_for_the_token_and_revokes_it(
    busy_pod: Pod, verifier_process: Verifier, bao: OpenBao, tmp_path: Path
) -> None:
    logging_in, signalled = threading.Event(), threading.Event()

    def slowly(request: Request, _seen: Sequence[Request]) -> Spoilt | None:
        if request.path.startswith(TOKEN_PATH):
            logging_in.set()
            assert signalled.wait(120)  # the verifier's own time, in which the signal comes
        return None

    before = alive(bao)
    with front(tmp_path / "front", (verifier_process.port, busy_pod.plan.verifier.ca), slowly) as fronted:
        busy_pod.change(verifier=busy_pod.plan.verifier._replace(url=fronted.url, ca=fronted.ca))
        process = busy_pod.start()
        assert logging_in.wait(120)
        process.send_signal(signal.SIGTERM)
        signalled.set()
        ended = busy_pod.end(process)
    refused(ended, Exit.STOPPED, "stopped")
    assert ended.named("token_revoked")
    assert alive(bao) - before == set()
    assert busy_pod.published() == []


def test_sigterm_ends_a_wait_at_once(busy_pod: Pod, bao: OpenBao, tmp_path: Path) -> None:
    asked = threading.Event()

    def mute(request: Request, _seen: Sequence[Request]) -> Spoilt | None:
        if "/data/" in request.path:
            asked.set()
            return Spoilt(200, (), b" " * 10_000, trickle=True)
        return None

    before = alive(bao)
    with front(tmp_path / "front", (bao.tls_port, bao.ca), mute) as fronted:
        busy_pod.change(vault=busy_pod.plan.vault._replace(url=fronted.url, ca=fronted.ca), deadline_seconds=900)
        process = busy_pod.start()
        assert asked.wait(120)
        started = time.monotonic()
        process.send_signal(signal.SIGTERM)
        ended = busy_pod.end(process)
    assert time.monotonic() - started < 300, "10,000 bytes at this rate take 1000 s, and the deadline is 900 s"
    refused(ended, Exit.STOPPED, "stopped")
    assert alive(bao) - before == set()


def test_while_it_holds_secrets_the_process_shows_none(busy_pod: Pod, bao: OpenBao, tmp_path: Path) -> None:
    revoking, is_known = threading.Event(), threading.Event()
    seen_there: list[bytes] = []
    token: list[str] = []

    def look(request: Request, _seen: Sequence[Request]) -> Spoilt | None:
        if request.path.endswith("revoke-self"):
            assert is_known.wait(120)
            folder = Path(f"/proc/{process.pid}")
            seen_there.extend((folder / name).read_bytes() for name in ("environ", "cmdline", "comm", "limits"))
            revoking.set()
        return None

    with front(tmp_path / "front", (bao.tls_port, bao.ca), look) as fronted:
        busy_pod.change(vault=busy_pod.plan.vault._replace(url=fronted.url, ca=fronted.ca))
        token.append(busy_pod.new_token())
        busy_pod.new_token = lambda: token[0]
        process = busy_pod.start()
        is_known.set()
        ended = busy_pod.end(process)
    assert ended.code == 0, ended.stderr
    assert revoking.is_set()
    clean(ended, token)
    shown = b"\n".join(seen_there)
    for secret in (CANARY, token[0], "hvs.", "s."):
        assert f"={secret}".encode() not in shown
    assert CANARY.encode() not in shown
    assert any(line.split()[4:6] == [b"0", b"0"] for line in shown.splitlines() if line.startswith(b"Max core")), shown
    held = {path for path in busy_pod.root.rglob("*") if path.is_file() and CANARY.encode() in path.read_bytes()}
    assert all(path.relative_to(busy_pod.root).parts[0] in ("secrets", "run") for path in held), (
        "secrets are on the two volumes alone"
    )
