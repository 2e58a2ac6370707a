"""How long a parent waits for its workers.

Silence is counted in turns of the parent's own loop: a machine that was suspended, or a paused container, makes no
worker look silent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

TURN_SECONDS: Final = 0.25
"""A worker's sign of life, and the parent's look for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerTiming:
    """Times in seconds.

    `silent`: after so long without a sign of life a worker gets no new connections. `hung`: then it is killed.
    `start`: the same for one that has never given a sign. `steady`: one that has lived so long ended by chance, and is
    started again at once; for others the pause grows from `backoff`'s first to its second value. `collect`: how often
    their metrics are read when nobody scrapes them, which bounds what a killed worker's counters lose. `overtime`: what
    a worker may take beyond the time that its requests have to finish.
    """

    silent: float = 3.0
    hung: float = 30.0
    start: float = 60.0
    steady: float = 60.0
    backoff: tuple[float, float] = (0.1, 10.0)
    collect: float = 2.0
    overtime: float = 2.0


TIMING: Final = WorkerTiming()
