"""The log: one JSON line per event on standard error, and one line for people in the pod's termination message."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import time
from pathlib import Path
from typing import Any, Final

from logline import format_line
from sidecar.errors import SidecarError

_MAX_TERMINATION_MESSAGE = 4096  # the kubelet cuts there (kubernetes.io/docs: "limited to 4096 bytes")
# A pipe that shows room takes so much at once without making us wait (pipe(7), PIPE_BUF).
_PIECE: Final = 4096
# A slow reader gets so long once; after that lines are dropped.
_PATIENCE_SECONDS: Final = 0.5


class Events:
    """Writes events. Callers give names, counts and reasons, never a value of a secret, a token or evidence.

    Never waits for a reader: under an agent policy without ReadStream the guest's pipe fills up, and a sidecar that
    waited there would publish nothing more. The next line that gets through says how many were `lost`.
    """

    def __init__(self, termination_log: Path) -> None:
        self._termination_log = termination_log
        self._started = time.monotonic()
        self._lost = 0
        self._is_torn = False

    def info(self, event: str, **fields: Any) -> None:
        self._write("info", event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        self._write("warning", event, fields)

    def refused(self, error: SidecarError) -> None:
        """Write the last line, and the same for people into the termination message."""
        self._write(
            "error",
            "refused",
            {
                "reason": error.reason,
                "detail": error.detail,
                "correlation_id": error.correlation_id,
                "exit_code": int(error.exit_code),
            },
        )
        line = error.line.encode(errors="backslashreplace")[: _MAX_TERMINATION_MESSAGE - 1] + b"\n"
        # Never created: where the kubelet mounts none, the file would only be litter.
        with contextlib.suppress(OSError):
            descriptor = os.open(self._termination_log, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
            with open(descriptor, "wb", buffering=0) as file:
                file.write(line)

    def _write(self, level: str, event: str, fields: dict[str, Any]) -> None:
        uptime = round((time.monotonic() - self._started) * 1000, 1)
        fields = {**fields, "uptime_ms": uptime}
        if self._lost:
            fields["lost"] = self._lost
        # Ends a line that was cut off, so that it does not spoil this one.
        line = ("\n" if self._is_torn else "") + format_line(time.time(), level, event, fields) + "\n"
        with contextlib.suppress(OSError):  # the reader has gone: no reason to keep a pod from starting
            self._lost = 0 if self._send(line.encode()) else self._lost + 1

    def _send(self, line: bytes) -> bool:
        """Whether all of it went through."""
        descriptor = sys.stderr.fileno()
        for start in range(0, len(line), _PIECE):
            if not select.select([], [descriptor], [], 0.0 if self._lost else _PATIENCE_SECONDS)[1]:
                self._is_torn = self._is_torn or start > 0
                return False
            os.write(descriptor, line[start : start + _PIECE])
        self._is_torn = False
        return True
