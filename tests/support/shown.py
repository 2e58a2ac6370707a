"""Lines for the person who waits, in spite of pytest's capturing: what is built, and what is waited for."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable

import pytest

Report = Callable[[str], None]


def report_of(config: pytest.Config) -> Report:
    """Shows a line at once."""
    capture = config.pluginmanager.getplugin("capturemanager")

    def report(line: str) -> None:
        with capture.global_and_fixture_disabled() if capture else contextlib.nullcontext():
            print(f"\n{line}", file=sys.stderr, flush=True)

    return report
