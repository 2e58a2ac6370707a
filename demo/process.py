"""A process of the demo: in a session of its own, so that Ctrl-C is ours to pass on, its output in a file."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self, TypeVar

from demo import interrupts
from demo.transcript import UnexpectedError

ROOT = Path(__file__).parent.parent
_START_SECONDS = 60
_STOP_SECONDS = 15
_POLL_SECONDS = 0.02

T = TypeVar("T")


def morphisms(*arguments: object) -> list[str]:
    """The command line of a `morphisms` subcommand, from this checkout."""
    return [sys.executable, "-m", "cli.main", *map(str, arguments)]


class Process:
    """A process that runs while entered: entering waits for `ready`, leaving always stops it."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        *,
        environment: Mapping[str, str] | None = None,
        folder: Path = ROOT,
    ) -> None:
        self.name = name
        self._folder = folder
        self.log = log
        # The kernel stops it also when the demo is killed and cannot.
        self._command = [shutil.which("setpriv") or "setpriv", "--pdeathsig=TERM", *command]
        self._environment = dict(os.environ if environment is None else environment)
        self._process: subprocess.Popen[bytes] | None = None

    def ready(self) -> None:
        """Wait until it can be used. Raises UnexpectedError."""

    def __enter__(self) -> Self:
        try:
            with self.log.open("wb") as output, interrupts.held():
                self._process = subprocess.Popen(  # noqa: S603 - the demo's own commands
                    self._command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    cwd=self._folder,
                    env=self._environment,
                    start_new_session=True,
                )
            self.ready()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._process is None:
            return
        # To our servers the second signal says: do not wait for endpoints to move. Nobody here watches any. It is
        # another one, because two of the same may arrive as one.
        for number in (signal.SIGTERM, signal.SIGINT):
            self._process.send_signal(number)
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def await_line(self, pattern: str) -> re.Match[str]:
        """Wait for the text in its output. Raises UnexpectedError when the process exits or stays silent instead."""
        return self.await_(lambda: re.search(pattern, self.log.read_text()))

    def await_(self, look: Callable[[], T | None]) -> T:
        """Wait until `look` finds something; another program's start is nothing that can be awaited otherwise."""
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            found = look()
            if found is not None:
                return found
            if self._process is None or self._process.poll() is not None:
                break
            time.sleep(_POLL_SECONDS)
        last = "".join(self.log.read_text().splitlines(keepends=True)[-3:]).strip()
        raise UnexpectedError(f"{self.name} did not start: {last or 'it says nothing'}")


def run(command: Sequence[str], environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command until it exits, and capture its output. When interrupted, its descendants are stopped too."""
    process = None
    try:
        with interrupts.held():
            process = subprocess.Popen(  # noqa: S603 - the demo's own commands
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                cwd=ROOT,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
            )
        stdout, stderr = process.communicate(timeout=_START_SECONDS)
    except BaseException:
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)
