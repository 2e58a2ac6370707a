"""Folders that are slow to make: made once per content of what goes in, and kept outside the tree, the newest few."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tests.cluster.binaries import Report, only_one

_KEPT: Final = 3


def cache(kind: str) -> Path:
    """Where the folders of this kind are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "morphisms" / kind


def kept(kind: str, content: str, make: Callable[[Path], None], making: str, report: Report) -> Path:
    """The folder of this content; `make` fills it where there is none. `making` tells what is done then."""
    folder = cache(kind) / content
    folder.parent.mkdir(parents=True, exist_ok=True)
    with only_one(folder.with_name("lock"), f"another process is {making}", report):
        if not folder.exists():
            report(f"{making} (kept in {folder})")
            unfinished = folder.with_name(f".{folder.name}")
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            make(unfinished)
            unfinished.replace(folder)
            _remove_old(folder.parent)
        folder.touch()
    return folder


def _remove_old(parent: Path) -> None:
    found = sorted((path for path in parent.iterdir() if path.is_dir()), key=lambda path: path.stat().st_mtime)
    for old in found[:-_KEPT]:
        shutil.rmtree(old)
