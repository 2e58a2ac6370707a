"""`make images`: builds the Dockerfile's three targets by an engine, else by buildah, else prints why it cannot."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path

from tools.images.commands import output, run, succeeds
from tools.images.targets import TARGETS

SOURCE = Path(__file__).parents[2]
_BUILD = SOURCE / "build" / "images"
# The contents of the Dockerfile's base, from Debian's own packages; another list is another base.
_BASE_PACKAGES = "binutils,ca-certificates,gcc,libc6-dev,make,python3,python3-pip,python3-venv"
_BASE = f"localhost/morphisms-base:{hashlib.sha256(_BASE_PACKAGES.encode()).hexdigest()[:12]}"
# pip trusts this machine's authorities; those of the images have another source.
_AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"
_BUILDAH = ("buildah", "--storage-driver", "overlay")


@dataclass(frozen=True, slots=True)
class Build:
    """The settings that all images of one build share."""

    version: str
    epoch: str
    pip: Path | None

    @classmethod
    def of_checkout(cls) -> Build:
        project = tomllib.loads((SOURCE / "pyproject.toml").read_text())["project"]
        epoch = os.environ.get("SOURCE_DATE_EPOCH") or output("git", "-C", str(SOURCE), "log", "-1", "--format=%ct")
        pip = Path(os.environ.get("PIP_CONFIG_FILE", "/etc/pip.conf"))
        return cls(project["version"], epoch or "0", pip if pip.is_file() else None)

    def options(self, target: str) -> list[str]:
        """The options that Docker, Podman and buildah take alike."""
        options = ["--target", target, "--tag", self.tag(target), "--build-arg", f"SOURCE_DATE_EPOCH={self.epoch}"]
        return options + ([f"--secret=id=pip,src={self.pip}"] if self.pip else [])

    def tag(self, target: str) -> str:
        return f"morphisms/{target}:{self.version}"


def main() -> int:
    """Build all three; the exit code. Without a builder it prints a message and succeeds."""
    build = Build.of_checkout()
    engine = next((name for name in ("docker", "podman") if succeeds(name, "info")), None)
    if engine is not None:
        for target in TARGETS:
            run(engine, "build", *build.options(target), str(SOURCE))
            print(f"{build.tag(target)}: in {engine}'s store")
        return 0
    missing = [name for name in ("buildah", "mmdebstrap") if shutil.which(name) is None]
    if missing or os.geteuid() != 0:
        why = f"{' and '.join(missing)} not installed" if missing else "not root"
        print(
            f"images: skipped. Neither docker nor podman answers, and buildah cannot stand in ({why}).\n"
            "On Debian, as root: apt-get install buildah mmdebstrap"
        )
        return 0
    _without_engine(build)
    return 0


def _without_engine(build: Build) -> None:
    """On a base of this machine's Debian mirror in place of the pinned one: for trying out, not for delivery."""
    if not output(*_BUILDAH, "images", "--quiet", "--filter", f"reference={_BASE}"):
        print(f"{_BASE}: from Debian's packages, once, about a minute", flush=True)
        _make_base()
    _BUILD.mkdir(parents=True, exist_ok=True)
    for target in TARGETS:
        archive = _BUILD / f"{target}.tar"
        written, found = archive.with_suffix(".written"), archive.with_suffix(".id")
        run(
            # The time of every layer is the same, so one from the cache is the one that would be built.
            *(*_BUILDAH, "bud", "--isolation", "chroot", "--pull-never", "--from", _BASE, "--timestamp", "0"),
            *("--layers", "--volume", f"{_AUTHORITIES}:{_AUTHORITIES}:ro", "--iidfile", str(found)),
            *(*build.options(target), str(SOURCE)),
        )
        # What says which image the archive holds is written after it, and taken away before.
        holds = f"{build.tag(target)} {found.read_text().strip()}"
        if not (archive.exists() and written.exists() and written.read_text() == holds):
            written.unlink(missing_ok=True)
            archive.unlink(missing_ok=True)
            run(*_BUILDAH, "push", "--quiet", build.tag(target), f"oci-archive:{archive}:{build.tag(target)}")
            written.write_text(holds)
        print(f"{build.tag(target)}: {archive.relative_to(SOURCE)}, {archive.stat().st_size / 1e6:.1f} MB compressed")
    print("The base was this machine's Debian, not the digest that the Dockerfile names: for trying out.")


def _make_base() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        archive = f"{scratch}/base.tar"
        run("mmdebstrap", "--quiet", "--variant=minbase", f"--include={_BASE_PACKAGES}", "bookworm", archive)
        container = output(*_BUILDAH, "from", "scratch")
        run(*_BUILDAH, "add", "--quiet", container, archive, "/")
        run(*_BUILDAH, "commit", "--quiet", "--rm", container, _BASE)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except subprocess.CalledProcessError as failure:
        sys.exit(f"images: {failure.cmd[0]} failed with {failure.returncode}")
