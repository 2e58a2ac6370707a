"""Real builds of the helper in a temporary folder, and containers that use them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.sidecar.exec.container import CANARY, CONTAINER, HERE, RUN, Pod
from tests.support import packages
from tests.support.exec_helper import build_helper


@pytest.fixture(scope="session")
def compiler() -> str:
    return packages.require_c_compiler()


@pytest.fixture(scope="session")
def shipped(compiler: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The helper exactly as an image carries it."""
    return build_helper(tmp_path_factory.mktemp("shipped"))


@pytest.fixture(scope="session")
def patient(compiler: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_helper(tmp_path_factory.mktemp("patient"), f'-DRUN_DIRECTORY=\\"{RUN}\\" -DWAIT_MILLISECONDS=20000')


@pytest.fixture(scope="session")
def hasty(compiler: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_helper(tmp_path_factory.mktemp("hasty"), f'-DRUN_DIRECTORY=\\"{RUN}\\" -DWAIT_MILLISECONDS=1000')


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
