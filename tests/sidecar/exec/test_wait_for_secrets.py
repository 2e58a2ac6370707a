"""Nothing is read before the marker is there, and nothing waits for ever."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.sidecar.exec.container import CONTAINER, NOT_PUBLISHED, Pod, Report, refused

# The kernel's number of rt_sigtimedwait.
_SIGTIMEDWAIT = {"x86_64": "128", "aarch64": "137"}


def looks(pid: int) -> int:
    """How often the process went to sleep by itself: once for each look at the marker."""
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("voluntary_ctxt_switches"))


def takes_signals(pid: int) -> bool:
    """Whether it waits in rt_sigtimedwait; before that a signal does what it always does. True where none can tell."""
    try:
        number = (Path("/proc") / str(pid) / "syscall").read_text().split()[0]
    except OSError:
        return True
    return number == _SIGTIMEDWAIT.get(os.uname().machine, number)


def await_looks(process: subprocess.Popen[bytes], count: int, waiting: int | None = None) -> None:
    """Until it has looked so often again."""
    pid = waiting or process.pid
    while not takes_signals(pid):
        assert process.poll() is None, "did not wait"
        time.sleep(0.001)
    goal = looks(pid) + count
    while looks(pid) < goal:
        assert process.poll() is None, "did not wait"
        time.sleep(0.001)


def only_child(process: subprocess.Popen[bytes], program: Path) -> int:
    """The process that `unshare` has made, once it runs the program."""
    while True:
        assert process.poll() is None, "did not start"
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        if children and Path(f"/proc/{children[0]}/exe").readlink() == program:
            return int(children[0])
        time.sleep(0.001)


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


ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGRTMIN + 3)
IGNORED = (signal.SIGWINCH, signal.SIGCHLD, signal.SIGURG, signal.SIGCONT)


@pytest.mark.parametrize("number", ENDING)
@pytest.mark.parametrize("first", [False, True])
def test_a_stopped_pod_need_not_wait_for_the_end_of_its_grace_period(pod: Pod, number: int, first: bool) -> None:
    """Also as process 1, whose signals Linux drops without a handler. Each may be an image's STOPSIGNAL."""
    unshare = ["unshare", "--pid", "--fork", "--kill-child", "--"] if first else []
    if first and os.geteuid() != 0:
        pytest.skip("a process namespace of its own needs root")
    pipe = subprocess.PIPE
    with subprocess.Popen([*unshare, *pod.words()], cwd=pod.root, env={}, stdout=pipe, stderr=pipe) as process:
        waiting = only_child(process, pod.helper) if first else process.pid
        await_looks(process, 2, waiting)
        os.kill(waiting, number)
        output, errors = process.communicate(timeout=120)
    assert (process.returncode, output, errors) == (128 + number, b"", b"")


def test_signals_that_end_no_program_do_not_end_the_wait(pod: Pod) -> None:
    pipe = subprocess.PIPE
    with subprocess.Popen(pod.words(), cwd=pod.root, env={}, stdout=pipe, stderr=pipe) as process:
        await_looks(process, 2)
        for number in IGNORED:
            process.send_signal(number)
        await_looks(process, 3)
        pod.publish()
        output, errors = process.communicate(timeout=120)
    assert errors == b""
    assert Report.parse(output).environment == []


def test_the_application_gets_the_signal_mask_that_the_container_had(pod: Pod) -> None:
    """After a wait too."""
    pod.publish()
    plain = Report.parse(subprocess.run([pod.application], cwd=pod.root, env={}, capture_output=True).stdout)
    assert pod.report().signals == plain.signals
    (pod.run_folder / "ready").unlink()
    pipe = subprocess.PIPE
    with subprocess.Popen(pod.words(), cwd=pod.root, env={}, stdout=pipe, stderr=pipe) as process:
        await_looks(process, 2)
        (pod.run_folder / "ready").touch()
        output, _ = process.communicate(timeout=120)
    assert Report.parse(output).signals == plain.signals
