"""The helper becomes the application: same process, and nothing of ours in it."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import stat
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.sidecar.exec.container import CANARY, CANNOT_RUN, CONTAINER, NO_ENV_FILE, NOT_FOUND, Pod, Report, refused

PIPE = subprocess.PIPE


def test_the_application_has_the_helpers_process_id(pod: Pod) -> None:
    pod.publish(b"A=1\0")
    with subprocess.Popen(pod.words(), cwd=pod.root, stdout=PIPE) as process:
        output, _ = process.communicate(timeout=120)
    assert Report.parse(output).pid == process.pid


def unusual() -> None:
    """A signal mask and an ignored signal that a parent may have set."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGCHLD})
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def test_everything_else_is_as_if_the_helper_were_not_there(pod: Pod) -> None:
    pod.publish(b"")
    read, write = os.pipe()
    options: dict[str, Any] = {
        "cwd": pod.root,
        "env": {"A": "1"},
        "capture_output": True,
        "pass_fds": (read, write),
        "timeout": 120,
    }
    words: list[str | Path] = [pod.application, "x"]
    direct, helped = (
        Report.parse(subprocess.run(each, preexec_fn=unusual, **options).stdout) for each in (words, pod.words(*words))
    )
    assert "SigBlk" in direct.signals
    assert f"{write} " in direct.descriptors
    assert replace(helped, pid=0) == replace(direct, pid=0)
    os.close(read)
    os.close(write)


def test_sigterm_reaches_the_application(pod: Pod) -> None:
    pod.publish(b"A=1\0")
    with subprocess.Popen(pod.words(pod.application, "wait"), cwd=pod.root, stdout=PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"here\n"
        process.terminate()
        assert process.wait(timeout=120) == 7


def test_is_process_one_of_its_namespace(pod: Pod) -> None:
    new_namespace = ["unshare", "--pid", "--fork", "--kill-child"]
    if subprocess.run([*new_namespace, "true"], capture_output=True).returncode:
        pytest.skip("making a process namespace needs root and unshare")
    pod.publish(b"A=1\0")
    done = subprocess.run([*new_namespace, *pod.words()], cwd=pod.root, capture_output=True, check=True, timeout=120)
    assert Report.parse(done.stdout).pid == 1


def test_arguments_arrive_byte_for_byte(pod: Pod) -> None:
    pod.publish(b"A=1\0")
    arguments = ["", "--", "-x", "a b", "$(HOME)", "\n", "é", "x" * 100_000, "", ""]
    report = pod.report(pod.application, *arguments)
    assert report.arguments == [os.fsencode(pod.application), *(argument.encode() for argument in arguments)]


@pytest.fixture
def folders(pod: Pod) -> Path:
    """Folders for PATH: `plain` has an application that may not be executed, `good` one that may, `none` is missing."""
    for name in ("plain", "good"):
        (pod.root / name).mkdir()
        shutil.copy(pod.application, pod.root / name / "server")
    (pod.root / "plain" / "server").chmod(stat.S_IRUSR)
    (pod.root / "folder" / "server").mkdir(parents=True)
    (pod.root / "file").touch()
    return pod.root


@pytest.mark.parametrize(
    "path", ["{0}/good", "{0}/none:{0}/file:{0}/folder:{0}/plain:{0}/good:{0}/none", "good", "/" + "x" * 5000 + ":good"]
)
def test_the_command_is_looked_up_in_path(pod: Pod, folders: Path, path: str) -> None:
    pod.publish(b"A=1\0")
    assert pod.report("server", env={"PATH": path.format(folders)}).arguments == [b"server"]


def test_a_path_that_is_a_secret_counts(pod: Pod, folders: Path) -> None:
    pod.publish_pairs({"PATH": f"{folders}/good"})
    assert pod.report("server", env={"PATH": f"{folders}/none"}).arguments == [b"server"]


@pytest.mark.parametrize("path", ["", ":/none", "/none:", "/none::/none"])
def test_an_empty_entry_of_path_is_the_working_directory(pod: Pod, folders: Path, path: str) -> None:
    pod.publish(b"A=1\0")
    shutil.copy(pod.application, folders / "here")
    assert pod.report("here", env={"PATH": path}).arguments == [b"here"]


def test_without_path_a_container_runtimes_default_holds(pod: Pod) -> None:
    pod.publish(b"A=1\0")
    assert pod.start("true").returncode == 0
    refused(pod.start("true", env={"PATH": "/none"}), NOT_FOUND, "cannot run true: not found")


def test_a_command_with_a_slash_is_not_looked_up(pod: Pod, folders: Path) -> None:
    pod.publish(b"A=1\0")
    assert pod.report("good/server", env={"PATH": "/none"}).arguments == [b"good/server"]
    refused(pod.start("./server", env={"PATH": f"{folders}/good"}), NOT_FOUND, "cannot run ./server: not found")


def test_what_cannot_run_says_why_as_shells_do(pod: Pod, folders: Path) -> None:
    pod.publish_pairs({"PATH": f"{folders}/{CANARY}:{folders}/plain"})
    (folders / "text").write_text("no program\n")
    (folders / "text").chmod(0o755)
    (folders / "script").write_text("#!/no/such/interpreter\n")
    (folders / "script").chmod(0o755)
    for command, code, words in (
        ("absent", NOT_FOUND, "web: cannot run absent: not found, or its interpreter is not"),
        ("", NOT_FOUND, "web: cannot run : not found"),
        ("server", CANNOT_RUN, "web: cannot run server: permission denied"),
        ("./plain/server", CANNOT_RUN, "web: cannot run ./plain/server: permission denied"),
        ("./folder", CANNOT_RUN, "permission denied"),
        ("./file/server", CANNOT_RUN, "a part of its path is not a folder"),
        ("./text", CANNOT_RUN, "not a program for this machine"),
        ("./script", NOT_FOUND, "not found, or its interpreter is not"),
        ("./a\nb\x1b[31m\x7fé", NOT_FOUND, "cannot run ./a?b?[31m???: not found"),
        ("./" + "x" * 300, CANNOT_RUN, "cannot run ./" + "x" * 61 + "...: error 36"),
    ):
        refused(pod.start(command), code, words)


def small_stack() -> None:
    """A quarter of this is what Linux then takes as arguments and environment, but never less than 128 KiB."""
    resource.setrlimit(resource.RLIMIT_STACK, (1 << 20, 1 << 20))


def test_too_much_environment_for_linux_is_said(pod: Pod) -> None:
    pod.publish_pairs({f"V{number}": CANARY + "x" * 90_000 for number in range(5)})
    done = pod.start(preexec_fn=small_stack)
    refused(done, CANNOT_RUN, "arguments and environment are too long together")


def test_runs_from_an_empty_root_file_system(empty_root: Callable[..., subprocess.Popen[bytes]]) -> None:
    """As in a distroless image, with the shipped binary at its real place."""
    process = empty_root("/morphisms/run/exec", CONTAINER, "--", "/app/server", "argument")
    output, errors = process.communicate(timeout=120)
    assert errors == b""
    report = Report.parse(output)
    assert report.pid == process.pid
    assert report.arguments == [b"/app/server", b"argument"]
    assert report.environment == [f"TOKEN={CANARY}".encode()]


def test_a_refusal_is_also_the_termination_message(
    empty_root: Callable[..., subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    process = empty_root("/morphisms/run/exec", "other", "--", "/app/server")
    output, errors = process.communicate(timeout=120)
    refused(
        subprocess.CompletedProcess([], process.returncode, output, errors), NO_ENV_FILE, "no /morphisms/run/env/other"
    )
    assert (tmp_path / "dev" / "termination-log").read_bytes() == errors
