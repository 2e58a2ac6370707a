"""`--install`: the program puts itself where wrapped commands find it, whatever is there and whoever else does so."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.sidecar.exec.container import NOT_INSTALLED, Pod, refused


def install(pod: Pod, helper: Path | None = None) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([helper or pod.helper, "--install"], cwd=pod.root, env={}, capture_output=True, timeout=120)


def is_installed(pod: Pod) -> bool:
    """As a regular file of the right mode, with the program's own bytes, and nothing beside it."""
    target = pod.run_folder / "exec"
    status = target.lstat()
    return (
        stat.S_ISREG(status.st_mode)
        and stat.S_IMODE(status.st_mode) == 0o550
        and target.read_bytes() == pod.helper.read_bytes()
        and [each.name for each in pod.run_folder.iterdir()] == ["exec"]
    )


def test_what_is_installed_runs_the_application(pod: Pod) -> None:
    done = install(pod)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert is_installed(pod)
    pod.publish_pairs({"A": "1"})
    installed = Pod(pod.root, pod.run_folder / "exec", pod.application)
    assert installed.report().environment == [b"A=1"]


def _a_link(pod: Pod, target: Path) -> None:
    (pod.root / "elsewhere").write_bytes(pod.helper.read_bytes())
    (pod.root / "elsewhere").chmod(0o550)
    target.symlink_to("../elsewhere")


def _another_mode(pod: Pod, target: Path) -> None:
    target.write_bytes(pod.helper.read_bytes())
    target.chmod(0o777)


def _another_of_the_same_size(pod: Pod, target: Path) -> None:
    content = bytearray(pod.helper.read_bytes())
    content[-1] ^= 1
    target.write_bytes(content)
    target.chmod(0o550)


FOUND: dict[str, Callable[[Pod, Path], object]] = {
    "another program": lambda pod, target: target.write_bytes(b"#!/bin/sh\n"),
    "one of the same size": _another_of_the_same_size,
    "the program with another mode": _another_mode,
    "a link to the program": _a_link,
    "a link to nothing": lambda pod, target: target.symlink_to("nowhere"),
    "a pipe": lambda pod, target: os.mkfifo(target),
}


@pytest.mark.parametrize("found", FOUND)
def test_replaces_what_is_not_the_program_and_follows_no_link(pod: Pod, found: str) -> None:
    (pod.root / "precious").write_text("precious")
    FOUND[found](pod, pod.run_folder / "exec")
    done = install(pod)
    assert (done.returncode, done.stderr) == (0, b"")
    assert is_installed(pod)
    assert (pod.root / "precious").read_text() == "precious"


def test_leaves_the_file_that_morphisms_init_has_published(pod: Pod) -> None:
    """It is a hard link into what is published as a whole; another file would look changed there."""
    (pod.run_folder / "..data").mkdir()
    published = pod.run_folder / "..data" / "exec"
    published.write_bytes(pod.helper.read_bytes())
    published.chmod(0o550)
    os.link(published, pod.run_folder / "exec")
    assert install(pod).returncode == 0
    assert (pod.run_folder / "exec").samefile(published)


def test_many_at_once_leave_one_whole_program(pod: Pod) -> None:
    """A hook that the kubelet repeats while the one before still runs."""
    pipe = subprocess.PIPE
    words = [pod.helper, "--install"]
    rivals = [subprocess.Popen(words, cwd=pod.root, env={}, stdout=pipe, stderr=pipe) for _ in range(8)]
    codes = [(each.communicate(timeout=120), each.returncode)[1] for each in rivals]
    assert 0 in codes
    assert install(pod).returncode == 0
    assert is_installed(pod)


def test_says_in_one_line_why_it_cannot(pod: Pod) -> None:
    (pod.run_folder / "exec").mkdir()
    refused(install(pod), NOT_INSTALLED, "cannot install run/exec: cannot put it in place: ")
    assert [each.name for each in pod.run_folder.iterdir()] == ["exec"]
    (pod.run_folder / "exec").rmdir()
    pod.run_folder.rmdir()
    refused(install(pod), NOT_INSTALLED, "cannot install run/exec: cannot write it: not found")


def test_a_container_may_not_be_called_so(pod: Pod) -> None:
    """`--install` is a form of its own, and no name of a container."""
    pod.publish()
    done = subprocess.run([pod.helper, "--install", "--", pod.application], cwd=pod.root, capture_output=True)
    refused(done, 81, "the first argument is not a container's name")
    assert not (pod.run_folder / "exec").exists()
