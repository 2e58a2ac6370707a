"""`on-change: signal:SIG:PROCESS`: signal the application, which shares this pod's process namespace and user.

The process is found by the kernel's records in /proc, never by a PID file, which could be forged. Of a tree of
processes with the name, only the topmost gets the signal: a server's workers often end at a signal that makes their
parent reload.
"""

from __future__ import annotations

import os
import signal
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from plan.document import parse_reaction
from sidecar.errors import SidecarError
from sidecar.publish.process_names import SHEBANG_BYTES, Record, is_named
from sidecar.reasons import Reason

_PROC: Final = Path("/proc")
# The first process of a shared namespace is the pod's pause container, or, where nothing is shared, the application.
_PAUSE: Final = 1


@dataclass(frozen=True, slots=True)
class _Process:
    pid: int
    parent: int


@dataclass(frozen=True, slots=True)
class Notification:
    """A signal, and the name of the process that gets it."""

    signal: signal.Signals
    process: str

    def send(self) -> int:
        """Send the signal; the number of processes that got it."""
        found = {each.pid: each for entry in os.listdir(_PROC) if (each := self._matching(entry)) is not None}
        return sum(self._signal(each) for each in found.values() if each.parent not in found)

    def _signal(self, process: _Process) -> bool:
        try:
            # The kernel may reuse a process's number before the signal is sent; a descriptor stays the process's own.
            descriptor = os.pidfd_open(process.pid)
        except OSError:
            return False
        try:
            if self._matching(str(process.pid)) is None:
                return False
            signal.pidfd_send_signal(descriptor, self.signal)
        except OSError:
            return False
        finally:
            os.close(descriptor)
        return True

    def _matching(self, entry: str) -> _Process | None:
        if not entry.isdecimal() or int(entry) in (_PAUSE, os.getpid()):
            return None
        folder = _PROC / entry
        try:
            status = (folder / "status").read_text(errors="replace")
            line = (folder / "cmdline").read_bytes()
        except OSError:  # it has ended, or the kernel hides it
            return None
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        if fields["Uid"].split()[0] != str(os.getuid()) or fields["State"].startswith(("Z", "X")):
            return None
        words = [os.fsdecode(word) for word in line.split(b"\0")[:-1]]
        record = Record(fields["Name"], words, _program(folder), lambda word: _first_bytes(folder, word))
        return _Process(int(entry), int(fields["PPid"])) if is_named(record, self.process) else None


def _program(folder: Path) -> str | None:
    try:
        return os.readlink(folder / "exe")
    except OSError:
        return None


def _first_bytes(folder: Path, word: str) -> bytes | None:
    """The start of a file, by the process's own root and working directory."""
    path = folder / "root" / word.lstrip("/") if word.startswith("/") else folder / "cwd" / word
    try:
        # Whatever the application names: a pipe must not block.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK)
    except (OSError, ValueError):
        return None
    try:
        return os.read(descriptor, SHEBANG_BYTES) if stat.S_ISREG(os.fstat(descriptor).st_mode) else None
    except OSError:
        return None
    finally:
        os.close(descriptor)


def notification(on_change: str) -> Notification | None:
    """The plan's notification, None without one. Raises SidecarError for a signal that Linux does not have."""
    wanted = parse_reaction(on_change)
    if wanted is None:
        return None
    name, process = wanted
    try:
        return Notification(signal.Signals[name], process)
    except KeyError:
        raise SidecarError(
            Reason.ON_CHANGE, f"on-change names {name}, which is not a signal of Linux; use one such as SIGHUP"
        ) from None
