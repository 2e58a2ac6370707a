"""Ends what a test run started when the run itself can no longer do so.

`python -m tests.cluster.keeper FOLDER…` is told pids on its standard input, `+PID` and `-PID` a line. At end of file,
which comes however the run died, it ends those still running: the last started first, each waited for. An API server
whose etcd went first would keep its port for a minute. Then it removes the folders.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from tests.support.paths import ROOT

_PATIENCE_SECONDS = 60


class Keeper:
    """The run's side."""

    def __init__(self, *folders: Path) -> None:
        command = [sys.executable, "-m", "tests.cluster.keeper", *map(str, folders)]
        # A session of its own: Ctrl-C in the terminal reaches the run only.
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, cwd=ROOT, start_new_session=True)

    def started(self, pid: int) -> None:
        """Answer for this process from now on."""
        self._tell(f"+{pid}\n")

    def ended(self, pid: int) -> None:
        """It is gone, and waited for."""
        self._tell(f"-{pid}\n")

    def close(self) -> None:
        """End whatever is left, and remove the folders."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(600)

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode())
        self._process.stdin.flush()


def _main() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # A descriptor names the process itself: a pid may be another's by then.
    kept: dict[int, int] = {}
    for line in sys.stdin:
        pid = int(line[1:])
        if line.startswith("-"):
            kept.pop(pid, None)
        else:
            with contextlib.suppress(ProcessLookupError):
                kept[pid] = os.pidfd_open(pid)
    for handle in reversed(kept.values()):
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, number)
                signal.pidfd_send_signal(handle, signal.SIGCONT)
            if select.select([handle], [], [], _PATIENCE_SECONDS)[0]:
                break
    for folder in sys.argv[1:]:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    _main()
