"""Nothing is read before the marker is there, and nothing waits for ever."""

from __future__ import annotations

import subprocess
import time

from tests.sidecar.exec.container import CONTAINER, NOT_PUBLISHED, Pod, Report, refused


def looks(pid: int) -> int:
    """How often the process went to sleep by itself: once for each look at the marker."""
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("voluntary_ctxt_switches"))


def await_looks(process: subprocess.Popen[bytes], count: int) -> None:
    goal = looks(process.pid) + count
    while looks(process.pid) < goal:
        assert process.poll() is None, "did not wait"


def test_waits_for_the_marker_even_when_the_pairs_are_there(pod: Pod) -> None:
    pipe = subprocess.PIPE
    with subprocess.Popen(pod.words(), cwd=pod.root, env={}, stdout=pipe, stderr=pipe) as process:
        await_looks(process, 3)
        folder = pod.run_folder / "env"
        folder.mkdir()
        (folder / CONTAINER).write_bytes(b"A=unfinished\0")
        await_looks(process, 3)
        (folder / CONTAINER).write_bytes(b"A=1\0")
        (pod.run_folder / "ready").touch()
        output, errors = process.communicate(timeout=120)
    assert errors == b""
    assert Report.parse(output).environment == [b"A=1"]


def test_the_deadline_ends_the_wait(hasty_pod: Pod) -> None:
    before = time.monotonic()
    done = hasty_pod.start()
    waited = time.monotonic() - before
    refused(done, NOT_PUBLISHED, "web: no secrets were published within 1 s (no run/ready)")
    assert waited >= 1
