"""Whatever happens to a test run, what it started ends: in order, and its folder goes."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tests.support.until import until

_RUN = """
import sys
from pathlib import Path
from tests.cluster.keeper import Keeper
from tests.cluster.process import Process
folder = Path(sys.argv[1])
keeper = Keeper(folder / "gone")
# Ended and told so: its pid must not be ended again, it may be another's.
Process([sys.executable, "-c", ""], folder / "short.log", keeper).start()
for name in ("first", "second"):
    log = folder / f"{name}.log"
    command = [sys.executable, "-u", "-c", sys.argv[2], str(folder / "order"), name]
    Process(command, log, keeper, ready=lambda log=log: log.read_text() == "up\\n").start()
(folder / "running").touch()
sys.stdin.read()
"""
_CHILD = """
import signal, sys
def end(*_):
    with open(sys.argv[1], "a") as order:
        order.write(sys.argv[2] + "\\n")
    sys.exit()
signal.signal(signal.SIGTERM, end)
print("up")
signal.pause()
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, None])
def test_a_run_that_dies_leaves_nothing_behind(tmp_path: Path, number: signal.Signals | None) -> None:
    (tmp_path / "gone").mkdir()
    run = subprocess.Popen([sys.executable, "-c", _RUN, str(tmp_path), _CHILD], cwd=ROOT, stdin=subprocess.PIPE)
    until((tmp_path / "running").exists)
    if number is None:
        run.communicate(b"")  # it ends by itself, without having stopped anything
    else:
        run.send_signal(number)
        run.wait(180)
    until(lambda: not (tmp_path / "gone").exists())
    assert (tmp_path / "order").read_text() == "second\nfirst\n"
