"""The exec helper, built as its Makefile builds it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

from tests.support.paths import ROOT

SOURCE: Final = ROOT / "sidecar" / "exec"


def build_helper(folder: Path, defines: str = "", compiler: str = "cc", source: Path = SOURCE) -> Path:
    """Build it into `folder`; the path of the binary."""
    command: list[str | Path] = ["make", "-C", source, f"BUILD={folder}", f"DEFINES={defines}", f"CC={compiler}"]
    made = subprocess.run(command, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    return folder / "exec"
