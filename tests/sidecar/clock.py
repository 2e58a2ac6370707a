"""The clock of a process under test, which the test moves: lives and pauses of minutes, without waiting for them.

Vault's own clock stays the machine's. So a token of ten minutes is due for renewal when the test says so, and does not
expire while a busy machine holds the process up.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import Final

# A clock that flows takes a move over while it sleeps for a while, so that no deadline passes within a task.
_CODE: Final = """
def _set_clock(path, flows):
    import mmap, struct, time
    with open(path, "r+b") as file:
        shared = mmap.mmap(file.fileno(), 8)
    real, pause, began, taken = time.monotonic, time.sleep, time.monotonic(), 0.0
    def moved():
        return struct.unpack("d", shared)[0]
    def now():
        return real() + taken if flows else began + moved()
    def sleep(seconds):
        nonlocal taken
        if not flows:
            shared[:] = struct.pack("d", moved() + seconds)
            return
        ends = now() + seconds
        while (left := ends - now()) > 0:
            pause(min(left, 0.01))
            taken = moved()
    time.monotonic, time.sleep = now, sleep
    if not flows:
        from kbs.deadline import Deadline
        left = Deadline.timeout
        Deadline.timeout = lambda deadline: max(left(deadline), 60.0)
"""


class Clock:
    """A process' monotonic clock. `code` runs first in the process.

    One that flows goes as the machine's, and skips what the test moves it by when the process sleeps next. One that
    does not flow stands still but for the process' sleeps, which take no time. What a busy machine takes does not count
    into a deadline there: an answer has a minute, however little is left.
    """

    def __init__(self, path: Path, *, flows: bool = True) -> None:
        path.write_bytes(struct.pack("d", 0.0))
        with path.open("r+b") as file:
            self._shared = mmap.mmap(file.fileno(), 8)
        self.code = f"{_CODE}\n_set_clock({str(path)!r}, {flows})\n"

    def advance(self, seconds: float) -> None:
        """Let so much time pass."""
        self._shared[:] = struct.pack("d", self.moved() + seconds)

    def moved(self) -> float:
        """Seconds that it was moved by, and, where it does not flow, that the process slept."""
        return float(struct.unpack("d", self._shared)[0])
