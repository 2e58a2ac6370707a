"""A long-running program of the cluster, with its log, that can be stopped, killed, paused and started again."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.cluster.keeper import Keeper
from tests.support.paths import ROOT


class Process:
    """`command` run in the background; both its outputs are appended to `log`.

    `ready` is asked until it says yes; `stop_seconds` is how long the program may take to end by itself.
    """

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        keeper: Keeper,
        *,
        environment: Mapping[str, str] | None = None,
        ready: Callable[[], bool] | None = None,
        ready_seconds: float = 240,
        stop_seconds: float = 120,
    ) -> None:
        self.command = list(command)
        self.name = log.stem
        self.log = log
        self.environment = dict(environment or {})
        self._keeper = keeper
        self._ready = ready
        self._ready_seconds = ready_seconds
        self._stop_seconds = stop_seconds
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self, *, wait: bool = True) -> None:
        """Start it, and wait until it is ready."""
        assert not self.running
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=ROOT,
                env={**os.environ, **self.environment},
                start_new_session=True,  # Ctrl-C is for the test run, which stops this in its turn
            )
        self._keeper.started(self._process.pid)
        if wait:
            self.wait_until_ready()

    def wait_until_ready(self) -> None:
        """As `wait_until`, for its own readiness."""
        if self._ready is not None:
            self.wait_until(self._ready)

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Raises RuntimeError with the end of its log when it ends first, or takes too long."""
        deadline = time.monotonic() + self._ready_seconds
        while not condition():
            if not self.running or time.monotonic() > deadline:
                end = self.log.read_text(errors="replace")[-3000:]
                raise RuntimeError(f"{self.name} is not ready; its log ends:\n{end}")
            time.sleep(0.05)  # another process' readiness gives no event to await

    def stop(self) -> int | None:
        """SIGTERM, and SIGKILL when that does not end it in time; its exit code, None when it did not run."""
        if self._process is None:
            return None
        if self.running:
            self.signal(signal.SIGTERM)
        try:
            code = self._process.wait(self._stop_seconds)
        except subprocess.TimeoutExpired:
            return self.kill()
        self._keeper.ended(self._process.pid)
        return code

    def kill(self) -> int:
        """SIGKILL."""
        assert self._process is not None
        self._process.kill()
        code = self._process.wait()
        self._keeper.ended(self._process.pid)
        return code

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal; SIGSTOP makes it hang, SIGCONT lets it go on."""
        assert self._process is not None
        self._process.send_signal(number)

    def restart(self) -> None:
        """Stop and start."""
        self.stop()
        self.start()

    def cpu_seconds(self) -> float:
        """Processor time that it has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident_mib(self) -> float:
        """Memory that it holds."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
