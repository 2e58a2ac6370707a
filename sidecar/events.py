"""What people and programs are told: one JSON line an event on standard error, one readable line at a pod's end."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from sidecar.refusal import RefusalError

_MAX_TERMINATION_MESSAGE = 4096  # the kubelet cuts there (kubernetes.io/docs: "limited to 4096 bytes")


class Events:
    """Writes events. Callers give names, counts and reasons, never a value of a secret, a token or evidence."""

    def __init__(self, termination_log: Path) -> None:
        self._termination_log = termination_log
        self._started = time.monotonic()

    def info(self, event: str, **fields: Any) -> None:
        self._write("info", event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        self._write("warning", event, fields)

    def refused(self, refusal: RefusalError) -> None:
        """The last line, and the same for people in the termination message."""
        self._write(
            "error",
            "refused",
            {
                "reason": refusal.reason,
                "detail": refusal.detail,
                "correlation_id": refusal.correlation_id,
                "exit_code": int(refusal.exit_code),
            },
        )
        line = refusal.line.encode(errors="backslashreplace")[: _MAX_TERMINATION_MESSAGE - 1] + b"\n"
        # Never created: where there is none, the file would only be litter in somebody's image.
        with contextlib.suppress(OSError):
            descriptor = os.open(self._termination_log, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
            with open(descriptor, "wb", buffering=0) as file:
                file.write(line)

    def _write(self, level: str, event: str, fields: dict[str, Any]) -> None:
        now = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03d}Z"
        since = round((time.monotonic() - self._started) * 1000, 1)
        record = {"time": stamp, "level": level, "event": event, **fields, "milliseconds": since}
        with contextlib.suppress(OSError):  # nobody reads any more: no reason to keep a pod from starting
            sys.stderr.write(json.dumps(record, separators=(",", ":")) + "\n")
            sys.stderr.flush()
