"""`make demo` tells its story to the end, and shows no plaintext secret."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).parent.parent.parent


def test_the_demo_ends_well_and_hides_what_the_recordings_hold() -> None:
    command = [sys.executable, "-m", "cli.demo"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=_ROOT, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "+  runtimeClassName: kata-qemu-snp" in done.stdout
    assert done.stdout.count("   refused\n") == 3
    assert "hunter2" not in done.stdout
