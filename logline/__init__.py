"""One form of log line for every process: webhook, verifier and sidecar, so that one parser reads them all.

A line is a JSON object. `time` (RFC 3339, UTC, milliseconds), `level` (info, warning, error) and `event` (snake_case,
stable) come first; then the event's own fields. `correlation_id` joins the lines of one request: the attestation's id
in sidecar and verifier, the AdmissionReview's uid in the webhook. `milliseconds` is how long something took.

It imports nothing of ours and little else: the sidecar pays for it on every cold start.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import PurePath


def format_line(seconds: float, level: str, event: str, fields: Mapping[str, object]) -> str:
    """The line, without its newline, of an event at `seconds` since 1970. An empty `correlation_id` is left out."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    line: dict[str, object] = {"time": f"{stamp}.{int(seconds % 1 * 1000):03d}Z", "level": level, "event": event}
    line |= {name: value for name, value in fields.items() if name not in line}
    if not line.get("correlation_id", True):
        del line["correlation_id"]
    return _encode(line)


def _plain(value: object) -> str:
    """A path as it is, anything else by its type: its text may hold a value."""
    return str(value) if isinstance(value, PurePath) else f"<{type(value).__name__}>"


# `json.dumps` would make an encoder for each line.
_encode = json.JSONEncoder(separators=(",", ":"), default=_plain).encode
