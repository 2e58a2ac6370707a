"""Mounts inside a pod's own mount namespace, by mount(8)."""

from __future__ import annotations

import shutil
import subprocess
from decimal import Decimal
from pathlib import Path


def tmpfs(target: Path, mode: int, *, size: Decimal | None = None, group: int | None = None) -> None:
    """A memory file system."""
    options = [f"mode={mode:o}"]
    if size is not None:
        options.append(f"size={int(size)}")
    if group is not None:
        options.append(f"gid={group}")
    target.mkdir(parents=True, exist_ok=True)
    _mount("-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(target))


def place(root: Path, path: str, source: Path, *, read_only: bool = True) -> None:
    """Show `source` as `path` below `root`; links are copied, their targets are not."""
    target = root / path.lstrip("/")
    target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    if source.is_symlink():
        target.symlink_to(source.readlink())
        return
    if source.is_dir():
        target.mkdir(mode=0o755, exist_ok=True)
    else:
        target.touch()
    _mount("--rbind", str(source), str(target))
    if read_only:
        protect(target)


def protect(target: Path) -> None:
    """No more writing through this mount."""
    _mount("-o", "remount,bind,ro", str(target))


def _mount(*arguments: str) -> None:
    program = shutil.which("mount") or "/usr/bin/mount"
    subprocess.run([program, *arguments], check=True, capture_output=True, text=True)  # noqa: S603 - the pod's own paths
