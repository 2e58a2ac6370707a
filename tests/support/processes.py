"""Programs of the project that run beside a test."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support.paths import ROOT
from tests.support.until import until

_LISTENING = re.compile(r'"listening","address":\["[^"]*",(\d+)\],"metrics":\["[^"]*",(\d+)\]')


def morphisms(*arguments: object) -> list[str]:
    """The command line of a subcommand."""
    return [sys.executable, "-m", "cli.main", *map(str, arguments)]


@contextlib.contextmanager
def running(
    command: Sequence[str | Path], log: Path, *, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process whose two outputs go to the file `log`, killed at the end if it still runs.

    `environment`: the whole environment; by default this process' own.
    """
    process = start(command, log, environment=environment)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def start(
    command: Sequence[str | Path], log: Path, *, environment: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """As `running`, for a process that the caller ends. Its outputs are appended to `log`."""
    with log.open("ab") as file:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            cwd=ROOT,
            env=dict(os.environ if environment is None else environment),
        )


def listening_ports(process: subprocess.Popen[bytes], log: Path) -> tuple[int, int]:
    """The port and the metrics port that a server logs once it has bound them. Raises RuntimeError when it ends."""

    found: re.Match[str] | None = None

    def said() -> bool:
        nonlocal found
        has_ended = process.poll() is not None  # looked at first: what it had said by then is in the log
        found = _LISTENING.search(log.read_text())
        if found is None and has_ended:
            raise RuntimeError(f"the server did not start: {log.read_text()}")
        return found is not None

    until(said)
    assert found is not None
    return int(found[1]), int(found[2])


def log_lines(log: Path) -> list[dict[str, Any]]:
    """The JSON lines that are whole by now; the last may still be on its way into the file."""
    return [json.loads(line) for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")]
