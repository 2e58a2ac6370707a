"""Root file systems, assembled once a run on kept foundations.

The generator is the one that the Dockerfile's build stage installs.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.images import foundations
from tests.support import packages
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

    def make(name: str) -> Image:
        folder = tmp_path_factory.mktemp(name)
        foundations.lay(foundations.kept_foundations() / "tools", name, folder)
        return _with_own(name, folder / "rootfs", folder / "environment")

    return make


@pytest.fixture(scope="session")
def images(assemble: Callable[[str], Image], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Image]:
    """All three, on copies of the kept foundations."""
    made = {}
    for name in TARGETS:
        kept, root = foundations.kept_foundations() / name, tmp_path_factory.mktemp(name) / "rootfs"
        shutil.copytree(kept / "rootfs", root, symlinks=True)
        made[name] = _with_own(name, root, kept / "environment")
    return made


def _with_own(name: str, root: Path, environment: Path) -> Image:
    foundations.run_part(foundations.kept_foundations() / "tools", "own", name, root, environment)
    return Image(TARGETS[name], root)


@pytest.fixture(params=list(TARGETS))
def image(request: pytest.FixtureRequest, images: dict[str, Image]) -> Image:
    """Each in turn."""
    return images[request.param]
