"""A standard error that nobody reads: an agent policy without ReadStream, or a node's log pipeline that hangs."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from plan import layout
from plan.codec import write_plan
from plan.document import SecretFile
from tests.sidecar.pod import CANARY, HOME, START, Pod
from tests.sidecar.resident import START as STAY
from tests.sidecar.secrets import write_secret
from tests.sidecar.test_shutdown import alive
from tests.support.openbao import OpenBao
from tests.support.paths import ROOT
from tests.support.until import until

PAGE = 4096  # the least that a pipe holds


@dataclass
class Unread:
    """Both ends of a pipe that takes nothing more."""

    reader: int
    writer: int

    def drain(self) -> bytes:
        os.set_blocking(self.reader, False)
        content = b""
        with contextlib.suppress(BlockingIOError):
            while more := os.read(self.reader, 1 << 16):
                content += more
        return content


@pytest.fixture
def unread() -> Iterator[Unread]:
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PAGE)
    os.write(writer, b"\n" * PAGE)
    yield Unread(reader, writer)
    os.close(reader)
    os.close(writer)


@pytest.fixture
def quiet(pod: Pod, bao: OpenBao) -> Pod:
    """A pod with one secret."""
    write_secret(bao, "unread", {"key": f"{CANARY}-1"})
    pod.change(secrets=(SecretFile("key", f"{HOME}/unread", "key", key="key"),))
    (pod.root / "token").write_text(pod.new_token())
    return pod


@contextlib.contextmanager
def started(pod: Pod, unread: Unread, code: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    words = [sys.executable, "-c", code, str(pod.root), str(pod.helper), *arguments]
    environment = {layout.PLAN_VARIABLE: write_plan(pod.plan)}
    process = subprocess.Popen(words, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stderr=unread.writer)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_agent_init_publishes_although_its_log_is_not_read(quiet: Pod, bao: OpenBao, unread: Unread) -> None:
    before = alive(bao)
    with started(quiet, unread, START) as process:
        assert process.wait(120) == 0
    assert (quiet.secrets / "key").read_text() == f"{CANARY}-1"
    assert alive(bao) - before == set()


def test_agent_sidecar_renews_and_stops_although_its_log_is_not_read(quiet: Pod, bao: OpenBao, unread: Unread) -> None:
    before = alive(bao)
    quiet.change(agent="sidecar")
    with started(quiet, unread, STAY, "0", "0.3", "60") as process:
        until(lambda: "ready" in quiet.published())
        write_secret(bao, "unread", {"key": f"{CANARY}-2"})
        until(lambda: (quiet.secrets / "key").read_text() == f"{CANARY}-2")
        lines = unread.drain()
        write_secret(bao, "unread", {"key": f"{CANARY}-3"})
        until(lambda: (quiet.secrets / "key").read_text() == f"{CANARY}-3")
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0
    assert alive(bao) - before == set()
    # Where a late line came in between, it is the one that says so.
    first, *_ = (json.loads(line) for line in (lines + unread.drain()).splitlines() if line)
    assert first["lost"] >= 3, "started, attested and published came before"
