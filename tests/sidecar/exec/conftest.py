"""Real builds of the helper in a temporary folder, and a folder published as `morphisms-init` publishes it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support import packages
from tests.support.paths import ROOT

HERE = Path(__file__).parent
SOURCE = ROOT / "sidecar" / "exec"
# Relative, so that one build serves every test from its own working directory.
RUN = "run"
CANARY = "canary-4f1d"
CONTAINER = "web"

# sidecar/exec/contract.h
USAGE, NAME, NOT_PUBLISHED, NO_ENV_FILE, NOT_A_FILE, TOO_LARGE, MALFORMED, SYSTEM = range(80, 88)
CANNOT_RUN, NOT_FOUND = 126, 127


def build(folder: Path, defines: str = "", compiler: str = "cc", source: Path = SOURCE) -> Path:
    """The helper as its Makefile builds it."""
    command: list[str | Path] = ["make", "-C", source, f"BUILD={folder}", f"DEFINES={defines}", f"CC={compiler}"]
    made = subprocess.run(command, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    return folder / "exec"


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
        return subprocess.run(words, cwd=self.root, env=env or {}, capture_output=True, timeout=30, **options)

    def report(self, *command: str | Path, env: Mapping[str, str] | None = None, **options: Any) -> Report:
        done = self.start(*command, env=env, **options)
        assert (done.returncode, done.stderr) == (0, b"")
        return Report.parse(done.stdout)


@pytest.fixture(scope="session")
def compiler() -> str:
    return packages.require_c_compiler()


@pytest.fixture(scope="session")
def shipped(compiler: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The helper exactly as an image carries it."""
    return build(tmp_path_factory.mktemp("shipped"))


@pytest.fixture(scope="session")
def patient(compiler: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("patient"), f'-DRUN_DIRECTORY=\\"{RUN}\\" -DWAIT_MILLISECONDS=20000')


@pytest.fixture(scope="session")
def hasty(compiler: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("hasty"), f'-DRUN_DIRECTORY=\\"{RUN}\\" -DWAIT_MILLISECONDS=1000')


@pytest.fixture(scope="session")
def application(compiler: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = tmp_path_factory.mktemp("application") / "application"
    subprocess.run([compiler, "-O1", "-o", built, HERE / "application.c"], check=True)
    return built


@pytest.fixture(scope="session")
def static_application(compiler: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, for where there is no loader and no library."""
    built = tmp_path_factory.mktemp("static") / "application"
    if subprocess.run(
        [compiler, "-static", "-O1", "-o", built, HERE / "application.c"], capture_output=True
    ).returncode:
        pytest.skip("this machine's C library cannot be linked statically, so no test application fits an empty root")
    return built


@pytest.fixture
def pod(tmp_path: Path, patient: Path, application: Path) -> Pod:
    (tmp_path / RUN).mkdir()
    return Pod(tmp_path, patient, application)


@pytest.fixture
def hasty_pod(tmp_path: Path, hasty: Path, application: Path) -> Pod:
    (tmp_path / RUN).mkdir()
    return Pod(tmp_path, hasty, application)


@pytest.fixture
def empty_root(tmp_path: Path, shipped: Path, static_application: Path) -> Callable[..., subprocess.Popen[bytes]]:
    """Runs words in a root file system that holds the helper, one application, published pairs and nothing else."""
    if os.geteuid() != 0:
        pytest.skip("changing the root folder needs root")
    run = tmp_path / "morphisms" / "run"
    (run / "env").mkdir(parents=True)
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "termination-log").touch()
    (tmp_path / "app").mkdir()
    shutil.copy(shipped, run / "exec")
    shutil.copy(static_application, tmp_path / "app" / "server")
    (run / "env" / CONTAINER).write_bytes(f"TOKEN={CANARY}\0".encode())
    (run / "ready").touch()

    def enter() -> None:
        os.chroot(tmp_path)
        os.chdir("/")

    def start(*words: str) -> subprocess.Popen[bytes]:
        pipe = subprocess.PIPE
        return subprocess.Popen(words, env={}, stdout=pipe, stderr=pipe, preexec_fn=enter)  # noqa: PLW1509

    return start
