"""A run may die in whatever way: what it made on this machine is gone afterwards, and the next one starts."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.node.records import RECORDS, Record, records
from tests.node.sandbox import Sandbox, remove_leftovers, traces
from tests.support.paths import ROOT
from tests.support.until import until

pytestmark = pytest.mark.node

# Makes a sandbox with a process that mounts something and sets what a kubelet sets; then waits to be killed.
_RUN = """
import subprocess, sys
from tests.node.sandbox import Sandbox
made = Sandbox.make()
mounted = f"mkdir {made.folder}/mounted && mount -t tmpfs none {made.folder}/mounted && exec sleep 600"
subprocess.Popen([*made.prefix, "sh", "-c", mounted], start_new_session=True)
made.run("sh", "-c", "echo 7 > /proc/sys/kernel/panic")
print(made.record.name, made.keeper._process.pid, flush=True)
sys.stdin.read()
"""


_PANIC = Path("/proc/sys/kernel/panic")


def _start() -> tuple[subprocess.Popen[str], Record, int]:
    command = [sys.executable, "-c", _RUN]
    run = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=ROOT, text=True
    )
    assert run.stdout is not None
    name, guard = run.stdout.readline().split()
    record = next(record for record in records() if record.name == name)
    until(lambda: len(record.cgroup.members()) >= 2)
    return run, record, int(guard)


def _kill(run: subprocess.Popen[str]) -> None:
    run.kill()
    run.wait()
    for pipe in (run.stdin, run.stdout):
        assert pipe is not None
        pipe.close()


def test_a_sandbox_sees_nothing_of_this_machine_and_leaves_nothing() -> None:
    made = Sandbox.make()
    try:
        links = made.run("ip", "-o", "link").stdout.decode()
        assert [line.split(": ")[1] for line in links.splitlines()] == ["lo", "cni0"]
        made.run("sh", "-c", "touch /run/mine /var/mine && mount -t tmpfs none /mnt && touch /mnt/mine")
        assert not [path for path in ("/run/mine", "/var/mine", "/mnt/mine") if Path(path).exists()]
        assert traces(made.record)
    finally:
        made.remove()
    assert traces(made.record) == []


def test_settings_of_the_kernel_that_a_kubelet_sets_stay_as_they_are_on_this_machine() -> None:
    """Also while another run, such as a demo cluster, sets its own: no order of their ends can leave a wrong value."""
    before = _PANIC.read_text()
    first, second = Sandbox.make(), Sandbox.make()
    try:
        for number, made in enumerate((first, second), 77):
            assert made.run("cat", str(_PANIC)).stdout.decode() == before
            made.run("sh", "-c", f"echo {number} > {_PANIC}")
        assert [made.run("cat", str(_PANIC)).stdout for made in (first, second)] == [b"77\n", b"78\n"]
        assert _PANIC.read_text() == before
        first.remove()
        assert second.run("cat", str(_PANIC)).stdout == b"78\n"
    finally:
        first.remove()
        second.remove()
    assert _PANIC.read_text() == before


def test_no_other_setting_of_the_kernel_can_be_written_in_a_sandbox() -> None:
    made = Sandbox.make()
    try:
        for name in ("vm/swappiness", "kernel/threads-max", "fs/protected_symlinks", "fs/file-max"):
            done = made.run("sh", "-c", f"cat /proc/sys/{name} > /proc/sys/{name}", check=False)
            assert b"Read-only file system" in done.stderr, name
        made.run("sh", "-c", "echo 0 > /proc/sys/net/ipv4/ip_forward")
    finally:
        made.remove()


def test_a_run_that_is_killed_half_way_leaves_nothing() -> None:
    run, record, _ = _start()
    try:
        assert traces(record)
    finally:
        _kill(run)
    until(lambda: not record.file.exists())
    assert traces(record) == []


def test_the_next_run_removes_one_that_died_together_with_its_guard() -> None:
    run, record, guard = _start()
    subprocess.run(["kill", f"-{signal.SIGKILL}", str(guard)], check=True)
    _kill(run)
    # A guard that is about to end holds its lock until it has.
    until(lambda: (remove_leftovers(), traces(record) == [])[1])
    made = Sandbox.make()
    made.remove()
    assert traces(made.record) == []


def test_a_run_leaves_the_sandbox_of_another_that_is_alive_alone() -> None:
    run, record, _ = _start()
    try:
        remove_leftovers()
        assert len(record.cgroup.members()) >= 2
        assert (RECORDS / f"{record.name}.json").exists()
    finally:
        _kill(run)
    until(lambda: not record.file.exists())
