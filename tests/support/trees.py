"""Older trees of this repository, from its history: what a release before would run. Cached outside the checkout."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.support.paths import ROOT


def tree(commit: str) -> Path:
    """The tree of a commit; skips the test where the checkout's history lacks it."""
    folder = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "morphisms" / "trees" / commit
    if not (folder / "cli").is_dir():
        archive = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True, check=False)
        if archive.returncode:
            pytest.skip(f"this checkout's history lacks commit {commit}, from which the test upgrades")
        unfinished = folder.with_name(f"{commit}.{os.getpid()}")
        with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
            files.extractall(unfinished, filter="data")
        try:
            unfinished.rename(folder)
        except OSError:  # another worker was faster
            assert (folder / "cli").is_dir()
    return folder
