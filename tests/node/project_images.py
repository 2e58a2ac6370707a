"""The project's three images, built from its own Dockerfile by `make images`, once per content of what goes in."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.cluster.binaries import Report
from tests.node import images
from tests.node.images import Image
from tests.support.kept import kept
from tests.support.paths import ROOT
from tools.images.build import SOURCE
from tools.images.targets import TARGETS


def build(report: Report) -> Path:
    """The folder with the three OCI archives, built where no kept ones are of the same content."""
    making = "building the images webhook, verifier and sidecar by buildah"
    return kept("images", _content(), lambda folder: _build(folder, report), making, report)


def make_images(folder: Path, built: Path) -> dict[str, Image]:
    """The three under the tier's names."""
    return {
        name: images.renamed(built / f"{name}.tar", f"morphisms/{name}", folder / f"{name}.tar") for name in TARGETS
    }


def _build(folder: Path, report: Report) -> None:
    started = time.monotonic()
    # By this machine's Debian in place of the pinned base: the last line of the output says so.
    done = subprocess.run(
        [sys.executable, "-m", "tools.images.build"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode or "skipped" in done.stdout:
        raise RuntimeError(f"the images were not built: {(done.stdout + done.stderr)[-3000:]}")
    report(f"  {time.monotonic() - started:.0f} s. {done.stdout.strip().splitlines()[-1]}")
    for name in TARGETS:
        shutil.copyfile(SOURCE / "build" / "images" / f"{name}.tar", folder / f"{name}.tar")


def _content() -> str:
    """A digest of all that the build reads: what .dockerignore lets in, and the Dockerfile."""
    digest = hashlib.sha256()
    for path in sorted(_files()):
        digest.update(f"{path.relative_to(ROOT)}\0{path.stat().st_mode & 0o111}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def _files() -> Iterator[Path]:
    yield ROOT / "Dockerfile"
    yield ROOT / ".dockerignore"
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if not line.startswith("!"):
            continue
        listed = ROOT / line.removeprefix("!")
        for path in [listed] if listed.is_file() else listed.rglob("*"):
            if (
                path.is_file()
                and "__pycache__" not in path.parts
                and path.suffix != ".pyc"
                and "build" not in path.parts
            ):
                yield path
