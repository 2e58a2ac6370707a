"""One run of a command in this process."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Done:
    """Its exit code, and what it printed on both outputs."""

    code: int
    out: str
    err: str
