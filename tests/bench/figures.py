"""Figures of repeated runs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence


def microseconds(call: Callable[[], object], *, rounds: int = 60, calls: int = 50) -> list[float]:
    """Processor time of one call, in µs, for each round: other programs on the machine lengthen it least."""
    times = []
    for _ in range(rounds):
        start = time.thread_time()
        for _ in range(calls):
            call()
        times.append((time.thread_time() - start) / calls * 1e6)
    return times


def spread(values: Sequence[float], unit: str = "") -> str:
    """Median with minimum and maximum."""
    return f"{statistics.median(values):,.1f}{unit} (min {min(values):,.1f}, max {max(values):,.1f}, n {len(values)})"
