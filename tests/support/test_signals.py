"""A run that was started with signals ignored starts its programs with none ignored."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

_TEST = """
import signal, subprocess, sys

def test_it():
    show = "import signal; print(signal.getsignal(signal.SIGHUP), signal.getsignal(signal.SIGINT))"
    shown = subprocess.run([sys.executable, "-c", show], capture_output=True, text=True, check=True).stdout
    assert "SIG_IGN" not in shown, shown
    signal.raise_signal(signal.SIGHUP)
    signal.raise_signal(signal.SIGINT)
"""


@pytest.mark.parametrize("workers", [(), ("-n", "1")])
def test_children_inherit_no_ignored_signal_and_the_run_still_ignores_it(tmp_path: Path, workers: list[str]) -> None:
    (tmp_path / "test_it.py").write_text(_TEST)
    pytest_ = [sys.executable, "-m", "pytest", "-q", "-p", "tests.support.signals", "-p", "no:cacheprovider"]
    command = [*pytest_, *workers, f"--rootdir={tmp_path}", str(tmp_path / "test_it.py")]
    ignoring = ["sh", "-c", 'trap "" HUP INT; exec "$@"', "sh", *command]
    done = subprocess.run(ignoring, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout
