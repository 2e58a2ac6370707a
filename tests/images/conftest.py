"""Root file systems, assembled once a run, with the generator that the Dockerfile's build stage installs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import packages
from tools.images.rootfs import SOURCE
from tools.images.targets import PACKAGES, PYTHON, TARGETS, Target

# A read-only mount in a mount namespace of its own, as a container with a read-only root has it; then another user.
_ENTER = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec chroot $USERSPEC "$0" "$@"'


@dataclass(frozen=True)
class Image:
    """A target's root file system."""

    target: Target
    root: Path

    @property
    def packages(self) -> Path:
        return self.root / PACKAGES.lstrip("/")

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run it as a container runtime would: read-only, not root, an empty environment."""
        root = os.geteuid() == 0
        enter = ["unshare", "--mount"] if root else ["unshare", "--user", "--map-root-user", "--mount"]
        environment = {"PATH": os.environ["PATH"], "USERSPEC": "--userspec=65532:65532" if root else ""}
        return subprocess.run(
            [*enter, "sh", "-c", _ENTER, str(self.root), *command], env=environment, capture_output=True, text=True
        )

    def python(self, program: str) -> str:
        """Output of a program that sees what the launcher lets ours see."""
        seen = f"import sys; sys.path.append({PACKAGES!r})\n{program}"
        done = self.run(f"/usr/bin/{PYTHON}", "-IS", "-c", seen)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="session")
def assemble(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Image]:
    """Assemble a target anew, in a folder of its own."""
    packages.require(make="make", cc="gcc", strip="binutils")
    if missing := [tool for tool in ("ldd", "dpkg-query") if shutil.which(tool) is None]:
        pytest.skip(f"the images' files are assembled from Debian's libraries; not here: {', '.join(missing)}")
    tools = tmp_path_factory.mktemp("tools")
    subprocess.run([sys.executable, "-m", "venv", tools], check=True)
    python = tools / "bin" / "python"
    options = ["--quiet", "--disable-pip-version-check", "--require-hashes", "--only-binary", ":all:"]
    locked = ["--requirement", str(SOURCE / "tools/images/generator.txt")]
    subprocess.run([python, "-m", "pip", "install", *options, *locked], check=True)

    def make(name: str) -> Image:
        folder = tmp_path_factory.mktemp(name)
        root = folder / "rootfs"
        for part in ("foundation", "own"):
            words = [part, name, str(root), str(folder / "environment")]
            subprocess.run([python, "-m", "tools.images.rootfs", *words], cwd=SOURCE, check=True)
        return Image(TARGETS[name], root)

    return make


@pytest.fixture(scope="session")
def images(assemble: Callable[[str], Image]) -> dict[str, Image]:
    """All three."""
    return {name: assemble(name) for name in TARGETS}


@pytest.fixture(params=list(TARGETS))
def image(request: pytest.FixtureRequest, images: dict[str, Image]) -> Image:
    """Each in turn."""
    return images[request.param]
