"""A container as the exec helper sees it: its working directory, and a folder published as `morphisms-init` does."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
# Relative, so that one build serves every test from its own working directory.
RUN = "run"
CANARY = "canary-4f1d"
CONTAINER = "web"

# sidecar/exec/contract.h
USAGE, NAME, NOT_PUBLISHED, NO_ENV_FILE, NOT_A_FILE, TOO_LARGE, MALFORMED, SYSTEM = range(80, 88)
NOT_INSTALLED = 88
CANNOT_RUN, NOT_FOUND = 126, 127


def refused(done: subprocess.CompletedProcess[bytes], code: int, words: str) -> None:
    """By its own exit code, in one line of plain text, without a value."""
    assert done.returncode == code, done.stderr
    assert done.stdout == b""
    line = done.stderr.decode("ascii")
    assert line.startswith("morphisms-exec: ")
    assert line.endswith("\n")
    assert line.count("\n") == 1
    assert line[:-1].isprintable()
    assert words in line
    assert CANARY not in line


@dataclass(frozen=True)
class Report:
    """What `application.c` says it was started with."""

    pid: int
    folder: str
    signals: str
    descriptors: str
    arguments: list[bytes]
    environment: list[bytes]

    @classmethod
    def parse(cls, output: bytes) -> Report:
        pid, folder, signals, descriptors, count, *strings = output.split(b"\0")[:-1]
        end = int(count)
        return cls(int(pid), folder.decode(), signals.decode(), descriptors.decode(), strings[:end], strings[end:])


@dataclass(frozen=True)
class Pod:
    """A container's view: its working directory, with the folder that the sidecar publishes into."""

    root: Path
    helper: Path
    application: Path

    @property
    def run_folder(self) -> Path:
        return self.root / RUN

    def publish(self, content: bytes = b"", container: str = CONTAINER, version: str = "..v1") -> None:
        """Aside first, then `env` as a link into the version's folder, then the marker."""
        folder = self.run_folder / version
        (folder / "env").mkdir(parents=True)
        (folder / "env" / container).write_bytes(content)
        self.link(version)
        (self.run_folder / "ready").touch()

    def link(self, version: str) -> None:
        fresh = self.run_folder / "..env"
        fresh.symlink_to(f"{version}/env")
        fresh.replace(self.run_folder / "env")

    def publish_pairs(self, pairs: Mapping[str, str]) -> None:
        self.publish(b"".join(f"{name}={value}\0".encode() for name, value in pairs.items()))

    def words(self, *command: str | Path) -> list[str | Path]:
        return [self.helper, CONTAINER, "--", *(command or (self.application,))]

    def start(
        self, *command: str | Path, env: Mapping[str, str] | None = None, **options: Any
    ) -> subprocess.CompletedProcess[bytes]:
        """Runs COMMAND, by default the application, through the helper, with `env` and nothing else inherited."""
        words = self.words(*command)
        return subprocess.run(words, cwd=self.root, env=env or {}, capture_output=True, timeout=120, **options)

    def report(self, *command: str | Path, env: Mapping[str, str] | None = None, **options: Any) -> Report:
        done = self.start(*command, env=env, **options)
        assert (done.returncode, done.stderr) == (0, b"")
        return Report.parse(done.stdout)
