"""One line per check of an appraisal, for a person at a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator

from attestation.appraisal.result import CheckResult


def rows(checks: Iterable[CheckResult]) -> Iterator[str]:
    """The checks below each other: whether each holds, its id, and what it found."""
    every = tuple(checks)
    width = max((len(check.id) for check in every), default=0)
    color = sys.stdout.isatty()
    for check in every:
        state, code = {True: ("ok", "32"), False: ("FAILED", "31"), None: ("-", "33")}[check.ok]
        mark = f"\x1b[{code}m{state:6}\x1b[0m" if color else f"{state:6}"
        text = check.line().partition(": ")[2].partition(": ")[2]
        yield f"{mark} {check.id:{width}}  {text}"
