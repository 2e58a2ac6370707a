"""What is refused: by its own exit code, in one line, without a value."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.sidecar.exec.container import (
    CANARY,
    CONTAINER,
    MALFORMED,
    NAME,
    NO_ENV_FILE,
    NOT_A_FILE,
    SYSTEM,
    TOO_LARGE,
    USAGE,
    Pod,
    refused,
)

SECRET = f"PASSWORD={CANARY}\0".encode()


FILES = {
    "no final NUL": (SECRET[:-1], MALFORMED, "pair 1 has no NUL at its end"),
    "half written": (SECRET + SECRET[:12], MALFORMED, "pair 2 has no NUL at its end"),
    "no equals sign": (SECRET + CANARY.encode() + b"\0", MALFORMED, "pair 2 has no ="),
    "empty pair": (SECRET + b"\0", MALFORMED, "pair 2 has no ="),
    "empty name": (b"=" + SECRET, MALFORMED, "pair 1 has an empty name"),
    "newline in a name": (b"A\n" + SECRET, MALFORMED, "pair 1 has a name with characters other"),
    "DEL in a name": (b"A\x7f=1\0", MALFORMED, "pair 1 has a name"),
    "a name that is not ASCII": ("PÄSSWORD=1\0".encode(), MALFORMED, "pair 1 has a name"),
    "a name twice": (SECRET + b"A=1\0" + SECRET, MALFORMED, "variable PASSWORD is there twice"),
    "a value too long for Linux": (
        SECRET + b"LONG=".ljust(128 * 1024, b"x") + b"\0",
        TOO_LARGE,
        "variable LONG takes more than 131072 bytes",
    ),
    "too many pairs": (
        b"".join(b"V%d=%s\0" % (number, CANARY.encode()) for number in range(4097)),
        TOO_LARGE,
        "variable V4096 is one more than the 4096",
    ),
    "too large a file": (
        b"".join(b"V%d=" % number + b"x" * 65536 + b"\0" for number in range(32)),
        TOO_LARGE,
        "more than 2097152 bytes",
    ),
    "a name too long to show": (b"N" * 70 + b"=\0" + b"N" * 70 + b"=\0", MALFORMED, "variable " + "N" * 63 + "... is"),
}


@pytest.mark.parametrize("case", FILES)
def test_files(pod: Pod, case: str) -> None:
    content, code, words = FILES[case]
    pod.publish(content)
    refused(pod.start(env={"OLD": CANARY}), code, words)


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        (CONTAINER,),
        (CONTAINER, "--"),
        (CONTAINER, "application", "--"),
        (CONTAINER, "-", "x"),
        (CONTAINER, "---", "x"),
    ],
    ids=str,
)
def test_usage(pod: Pod, arguments: tuple[str, ...]) -> None:
    pod.publish(SECRET)
    words: list[str | Path] = [pod.helper, *arguments]
    done = subprocess.run(words, cwd=pod.root, capture_output=True, timeout=120)
    refused(done, USAGE, "usage: exec CONTAINER -- COMMAND")


@pytest.mark.parametrize(
    "name",
    ["", "..", "../env/web", "/etc/passwd", "Web", "we b", "wéb", "web\n", "-web", "web-", "w" * 64, CANARY + "_"],
    ids=ascii,
)
def test_container_names(pod: Pod, name: str) -> None:
    pod.publish(SECRET)
    done = subprocess.run([pod.helper, name, "--", pod.application], cwd=pod.root, capture_output=True, timeout=120)
    refused(done, NAME, "not a container's name")


def test_the_longest_container_name_is_one(pod: Pod) -> None:
    name = "w" * 63
    pod.publish(b"A=1\0", container=name)
    words: list[str | Path] = [pod.helper, name, "--", pod.application]
    done = subprocess.run(words, cwd=pod.root, env={}, capture_output=True, check=True, timeout=120)
    assert done.stdout.endswith(b"\0A=1\0")


def test_published_without_this_container(pod: Pod) -> None:
    pod.publish(SECRET, container="other")
    refused(pod.start(), NO_ENV_FILE, "web: nothing was published for this container (no run/env/web)")


def link(path: Path) -> None:
    path.with_name("target").write_bytes(SECRET)
    path.symlink_to("target")


def listener(path: Path) -> None:
    """A socket's file, by a path that is short enough for one."""
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        with socket.socket(socket.AF_UNIX) as end:
            end.bind(f"/proc/self/fd/{folder}/{path.name}")
    finally:
        os.close(folder)


@pytest.mark.parametrize(
    ("make", "code", "words"),
    [
        (link, NOT_A_FILE, "run/env/web is not a regular file"),
        (lambda path: path.symlink_to("nowhere"), NOT_A_FILE, "is not a regular file"),
        (lambda path: path.mkdir(), NOT_A_FILE, "is not a regular file"),
        (os.mkfifo, NOT_A_FILE, "is not a regular file"),
        (listener, SYSTEM, "cannot open run/env/web: error 6"),
    ],
    ids=["link", "dangling link", "folder", "pipe", "socket"],
)
def test_only_a_regular_file_is_read(pod: Pod, make: Callable[[Path], object], code: int, words: str) -> None:
    pod.publish(SECRET)
    path = pod.run_folder / "env" / CONTAINER
    path.unlink()
    make(path)
    refused(pod.start(), code, words)


def test_a_folder_that_is_none_is_no_reason_to_wait(pod: Pod) -> None:
    pod.run_folder.rmdir()
    pod.run_folder.write_bytes(SECRET)
    refused(pod.start(), SYSTEM, "cannot look for run/ready: a part of its path is not a folder")
