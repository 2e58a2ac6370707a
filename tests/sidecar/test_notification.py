"""Who gets the signal: a process of that name and of our user, the top of its tree, and nobody else."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from plan.document import SecretFile
from sidecar.errors import SidecarError
from sidecar.publish.notify import notification
from sidecar.reasons import Exit
from tests.sidecar.pod import CANARY, HOME, Pod, refused
from tests.sidecar.resident import application, resident
from tests.sidecar.secrets import write_secret
from tests.support.openbao import OpenBao
from tests.support.paths import ROOT
from tests.support.until import until


def told(process: subprocess.Popen[str]) -> bool:
    """Whether it has got the signal, and only once: it says so itself, and then goes on living."""
    assert process.stdout is not None
    return process.stdout.readline() == "told\n" and process.poll() is None


@pytest.fixture
def note(tmp_path: Path) -> Path:
    (tmp_path / "note").write_text("told")
    return tmp_path / "note"


def tell(name: str, sign: str = "SIGHUP") -> int:
    wanted = notification(f"signal:{sign}:{name}")
    assert wanted is not None
    return wanted.send()


def test_a_program_is_known_by_its_file(tmp_path: Path, note: Path, name: str) -> None:
    with application(tmp_path, note, name) as process:
        assert tell(name) == 1
        assert told(process)
        assert tell(name[:-1]) == 0, "a part of a name is another name"


def sleeping(program: Path, **options: Any) -> subprocess.Popen[bytes]:
    """`sleep` under another name, once the kernel has its command line: that is a moment after execve succeeded."""
    program.symlink_to("/usr/bin/sleep")
    process = subprocess.Popen([program, "600"], **options)
    words = b"".join(word.encode() + b"\0" for word in (str(program), "600"))
    until(lambda: Path(f"/proc/{process.pid}/cmdline").read_bytes() == words)
    return process


def test_a_long_name_is_known_by_its_command(tmp_path: Path, name: str) -> None:
    long = f"{name}-with-a-long-name"
    process = sleeping(tmp_path / long)
    try:
        assert tell(long, "SIGTERM") == 1
        assert process.wait(120) == -signal.SIGTERM
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("first", [sys.executable, f"{sys.executable} -u", "/usr/bin/env python3"])
@pytest.mark.parametrize("way", ["absolute", "relative"])
def test_a_script_is_known_by_its_name_of_any_length(tmp_path: Path, first: str, way: str, name: str) -> None:
    """Beside one of which the kernel keeps the same letters, and beside others that only name it."""
    long, other = f"{name}-service-worker.py", f"{name}-service-writer.py"
    for each in (long, other):
        (tmp_path / each).write_text(f"#!{first}\nimport signal\nprint('up', flush=True)\nsignal.pause()\n")
        (tmp_path / each).chmod(0o755)
    path = tmp_path if way == "absolute" else Path()

    def start(*words: str | Path) -> subprocess.Popen[str]:
        return subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE, text=True)

    script = f"./{path / long}" if way == "relative" else path / long
    processes = [start(script), start(f"./{other}", long), start("tail", "-f", long, "/dev/null")]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline()
        assert tell(long, "SIGTERM") == 1
        assert processes[0].wait(120) == -signal.SIGTERM
        assert [each.poll() for each in processes[1:]] == [None, None]
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def test_each_of_several_processes_gets_the_signal(tmp_path: Path, note: Path, name: str) -> None:
    with application(tmp_path, note, name) as one, application(tmp_path, note, name) as other:
        assert tell(name) == 2
        assert told(one)
        assert told(other)


_TREE = """
import os, signal
def say(word):
    os.write(1, f"{word} {os.getpid()}\\n".encode())  # at once: two processes share the pipe
signal.signal(signal.SIGHUP, lambda *_: say("told"))
children = [os.fork() for _ in range(1)]
say("ready")
while True:
    signal.pause()
"""


@contextlib.contextmanager
def tree(program: Path) -> Iterator[subprocess.Popen[str]]:
    """A server with a worker of the same name, both of which would say that they were told."""
    program.write_text(f"#!{sys.executable}\n{_TREE}")
    program.chmod(0o755)
    process = subprocess.Popen([program], stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert process.stdout is not None
        for _ in range(2):
            assert process.stdout.readline().startswith("ready")
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def test_only_the_topmost_process_of_a_tree_gets_the_signal(tmp_path: Path, name: str) -> None:
    with tree(tmp_path / name) as process:
        assert tell(name) == 1
        assert process.stdout is not None
        assert process.stdout.readline() == f"told {process.pid}\n"


def test_another_users_process_gets_no_signal(name: str) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can start a process of somebody else")
    program = Path("/tmp") / name  # where that somebody can reach it; a link, and removed at once
    try:
        process = sleeping(program, user=65534)
    finally:
        program.unlink()
    try:
        assert tell(name, "SIGTERM") == 0
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()


_OURSELVES = """
import sys
from sidecar.publish.notify import notification
open("/proc/self/comm", "w").write(sys.argv[1])
print(notification(f"signal:SIGKILL:{sys.argv[1]}").send())
"""


def test_the_sidecar_never_signals_itself(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _OURSELVES, name], capture_output=True, text=True, timeout=120, cwd=ROOT
    )
    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr


def test_the_first_process_of_the_namespace_gets_no_signal(name: str) -> None:
    """In a process namespace of its own, where the first process has the name, as `pause` could."""
    script = f"""
import os, subprocess, sys
open("/proc/self/comm", "w").write({name!r})
assert os.getpid() == 1
code = "from sidecar.publish.notify import notification; print(notification('signal:SIGKILL:{name}').send())"
sys.exit(subprocess.run([sys.executable, "-c", code]).returncode)
"""
    words = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc", sys.executable, "-c", script]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, cwd=ROOT)
    if "unshare" in done.stderr:
        pytest.skip(f"no process namespace of its own here: {done.stderr.strip()}")
    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr


def test_a_process_that_has_ended_gets_no_signal(tmp_path: Path, name: str) -> None:
    program = tmp_path / name
    program.symlink_to("/usr/bin/true")
    process = subprocess.Popen([program])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # a zombie from here on
    assert tell(name) == 0
    process.wait()


def test_an_unknown_signal_is_refused() -> None:
    with pytest.raises(SidecarError, match="SIGNOTHING, which is not a signal of Linux") as caught:
        notification("signal:SIGNOTHING:nginx")
    assert caught.value.exit_code is Exit.CONFIGURATION
    assert notification("none") is None


def test_an_unknown_signal_is_refused_before_attestation(pod: Pod) -> None:
    pod.change(on_change="signal:SIGNOTHING:nginx")
    with resident(pod) as sidecar:
        refused(sidecar.end(), Exit.CONFIGURATION, "on-change")
        assert not sidecar.named("attested")


def test_a_notification_that_finds_no_process_is_logged(pod: Pod, bao: OpenBao, name: str) -> None:
    write_secret(bao, "nobody", {"key": f"{CANARY}-1"})
    pod.change(secrets=(SecretFile("key", f"{HOME}/nobody", "key", key="key"),), on_change=f"signal:SIGHUP:{name}")
    with resident(pod, reread=0.3) as sidecar:
        sidecar.wait("published")
        write_secret(bao, "nobody", {"key": f"{CANARY}-2"})
        (told,) = sidecar.wait("not_signalled")
        assert told["process"] == name
        first, second = sidecar.named("published")
        assert first["time"] <= second["time"] <= told["time"], "an application that has not started needs no signal"
        assert (pod.secrets / "key").read_text() == f"{CANARY}-2"
        assert sidecar.stop().code == 0


def test_a_restarted_sidecar_signals_what_changed_meanwhile(pod: Pod, bao: OpenBao, tmp_path: Path, name: str) -> None:
    write_secret(bao, "missed", {"key": f"{CANARY}-1"})
    pod.change(secrets=(SecretFile("key", f"{HOME}/missed", "key", key="key"),), on_change=f"signal:SIGHUP:{name}")
    with application(tmp_path, pod.secrets / "key", name) as process:
        assert process.stdout is not None
        with resident(pod) as sidecar:
            sidecar.wait("published")
            sidecar.stop(signal.SIGKILL)
        data = pod.publication()
        with resident(pod, reread=0.3) as sidecar:
            until(lambda: sidecar.probe("/startupz")[0] == 200)
            assert not sidecar.named("published"), "the same secrets are not written again"
            assert pod.publication() == data
            sidecar.stop(signal.SIGKILL)
        write_secret(bao, "missed", {"key": f"{CANARY}-2"})
        with resident(pod) as sidecar:
            sidecar.wait("signalled")
            assert process.stdout.readline() == f"{CANARY}-2\n"
            assert sidecar.stop().code == 0


@pytest.mark.parametrize("value", ["1", "2"], ids=["same", "changed"])
def test_a_sidecar_killed_before_the_signal_sends_it_after_its_restart(
    pod: Pod, bao: OpenBao, tmp_path: Path, name: str, value: str
) -> None:
    """Killed after the switch, and before `ready` was there again: what the application was told is not known."""
    write_secret(bao, "cut", {"key": f"{CANARY}-1"})
    pod.change(secrets=(SecretFile("key", f"{HOME}/cut", "key", key="key"),), on_change=f"signal:SIGHUP:{name}")
    with application(tmp_path, pod.secrets / "key", name) as process:
        assert process.stdout is not None
        with resident(pod) as sidecar:
            sidecar.wait("published")
            sidecar.stop(signal.SIGKILL)
        (pod.run_folder / "ready").unlink()
        write_secret(bao, "cut", {"key": f"{CANARY}-{value}"})
        with resident(pod) as sidecar:
            sidecar.wait("signalled")
            assert process.stdout.readline() == f"{CANARY}-{value}\n"
            assert "ready" in pod.published()
            assert sidecar.stop().code == 0
