"""What the images' locks and this machine decide of their files: made once per content, kept outside the tree.

The rest of an image, `own` of `tools.images.rootfs`, is added to a copy in each run.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.support.kept import cache, kept
from tools.images.rootfs import SOURCE
from tools.images.targets import PYTHON, TARGETS

CACHE: Final = cache("foundations")
_AUTHORITIES: Final = Path("/usr/share/ca-certificates/mozilla")
_PACKAGES: Final = Path("/var/lib/dpkg/status")


def kept_foundations() -> Path:
    """The folder with the generator (`tools`) and each target's foundation, made where none is of the same content."""
    return kept(CACHE.name, _content(), _make, "assembling the images' foundations", _say)


def lay(tools: Path, name: str, folder: Path) -> None:
    """One target's foundation, made anew in `folder`."""
    run_part(tools, "foundation", name, folder / "rootfs", folder / "environment")


def run_part(tools: Path, part: str, name: str, root: Path, environment: Path) -> None:
    """A part of `tools.images.rootfs`, run by the generator in `tools`."""
    words = [part, name, str(root), str(environment)]
    subprocess.run([tools / "bin" / "python", "-m", "tools.images.rootfs", *words], cwd=SOURCE, check=True)


def _make(folder: Path) -> None:
    tools = folder / "tools"
    subprocess.run([sys.executable, "-m", "venv", tools], check=True)
    options = ["--quiet", "--disable-pip-version-check", "--require-hashes", "--only-binary", ":all:"]
    locked = ["--requirement", str(SOURCE / "tools/images/generator.txt")]
    subprocess.run([tools / "bin" / "python", "-m", "pip", "install", *options, *locked], check=True)
    for name in TARGETS:
        lay(tools, name, folder / name)


def _content() -> str:
    """A digest of all that the foundations are made of: our tools and locks, the interpreter, Debian's packages."""
    digest = hashlib.sha256(f"{sys.version}\0{os.environ.get('SOURCE_DATE_EPOCH')}\0".encode())
    ours = [*(SOURCE / "tools" / "images").glob("*.py"), SOURCE / "tools" / "images" / "generator.txt"]
    locks = [SOURCE / target.requirements for target in TARGETS.values()]
    for path in [*sorted(ours), *locks, _PACKAGES]:
        digest.update(f"{path.name}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    for path in sorted(_of_the_machine()):
        about = path.stat()
        digest.update(f"{path}\0{about.st_size}\0{about.st_mtime_ns}\0".encode())
    return digest.hexdigest()[:16]


def _of_the_machine() -> Iterator[Path]:
    """Files that go in and that may be no package's: the interpreter, its library, its modules, the authorities."""
    base = Path(sys.base_prefix)
    yield (base / "bin" / PYTHON).resolve()
    yield from (path for path in (base / "lib").glob("libpython*.so*") if path.is_file())
    yield from _AUTHORITIES.glob("*.crt")
    for folder, below, names in os.walk(sysconfig.get_path("stdlib")):
        below[:] = [name for name in below if name not in ("__pycache__", "site-packages", "dist-packages")]
        yield from (path for name in names if (path := Path(folder, name)).is_file())


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
