"""A cgroup of a run's own, in every hierarchy: what it started is below it, and is found and ended there."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

_END_SECONDS = 300.0
_PAUSE_SECONDS = 0.02
_CONTROLLERS = ("cpuset", "cpu", "memory", "pids", "io")


class Cgroup:
    """`name` below each of the hierarchies. Its daemons are in the child `system`; the kubelet makes more children."""

    def __init__(self, name: str, hierarchies: Sequence[Path]) -> None:
        self.name = name
        self._hierarchies = tuple(hierarchies)

    @property
    def folders(self) -> list[Path]:
        return [hierarchy / self.name for hierarchy in self._hierarchies]

    def make(self) -> None:
        """Version 1: a cpuset is empty until it is written. Version 2: the controllers are handed down."""
        for hierarchy, folder in zip(self._hierarchies, self.folders, strict=True):
            for made in (folder, folder / "system"):
                _make(made)
            if (available := hierarchy / "cgroup.controllers").exists():
                offered = set(available.read_text().split())
                wanted = " ".join(f"+{name}" for name in _CONTROLLERS if name in offered)
                # None are left beside hierarchies of version 1.
                for parent in (hierarchy, folder) if wanted else ():
                    _write_control(parent, wanted)

    def switching_on(self) -> dict[str, list[str]]:
        """Version 2: by hierarchy, which controllers `make` will switch on there for all that is below it."""
        return {
            str(hierarchy): missing
            for hierarchy in self._hierarchies
            if (available := hierarchy / "cgroup.controllers").exists()
            and (missing := sorted((set(available.read_text().split()) & set(_CONTROLLERS)) - switched_on(hierarchy)))
        }

    def add(self, name: str) -> str:
        """Make one more child in every hierarchy, for a further kubelet; its path below each of them."""
        for folder in self.folders:
            _make(folder / name)
        return f"/{self.name}/{name}"

    def joining(self) -> list[str]:
        """Words before a command that becomes a member, with the same process id."""
        folders = [str(folder / "system" / "cgroup.procs") for folder in self.folders]
        joined = 'n=$1; shift; while [ "$n" -gt 0 ]; do echo $$ > "$1"; shift; n=$((n - 1)); done; exec "$@"'
        return ["sh", "-c", joined, "sh", str(len(folders)), *folders]

    def members(self) -> set[int]:
        """Process ids of it and all below it."""
        found: set[int] = set()
        for folder in self.folders:
            for each, _, files in os.walk(folder):
                if "cgroup.procs" in files:
                    with contextlib.suppress(OSError):  # the kubelet removes some meanwhile
                        found.update(map(int, Path(each, "cgroup.procs").read_text().split()))
        return found

    def end(self) -> None:
        """SIGKILL until none is left. Raises RuntimeError when that takes too long."""
        deadline = time.monotonic() + _END_SECONDS
        while members := self.members() - {os.getpid()}:
            if time.monotonic() > deadline:
                raise RuntimeError(f"processes of {self.name} do not end: {sorted(members)}")
            for pid in members:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(_PAUSE_SECONDS)

    def remove(self) -> None:
        """Remove it, empty, in every hierarchy."""
        for folder in self.folders:
            for each, _, _ in os.walk(folder, topdown=False):
                _remove(Path(each))


def switched_on(hierarchy: Path) -> set[str]:
    """Version 2: which controllers are on for the children of the root."""
    return set((hierarchy / "cgroup.subtree_control").read_text().split())


def switch_off(controllers: Mapping[str, Sequence[str]]) -> None:
    """Put back what `switching_on` named, but for controllers that another child has handed down meanwhile."""
    for hierarchy, names in controllers.items():
        for name in sorted(switched_on(Path(hierarchy)).intersection(names)):
            try:
                _write_control(Path(hierarchy), f"-{name}")
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise


def _write_control(folder: Path, words: str) -> None:
    (folder / "cgroup.subtree_control").write_text(words)


def _make(folder: Path) -> None:
    """Version 1: with the processors and memory of its parent."""
    folder.mkdir()
    for file in ("cpuset.cpus", "cpuset.mems"):
        if (folder.parent / file).exists():
            (folder / file).write_text((folder.parent / file).read_text())


def _remove(folder: Path) -> None:
    """A cgroup stays busy for a moment after its last process."""
    deadline = time.monotonic() + _END_SECONDS
    while folder.exists():
        try:
            folder.rmdir()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(_PAUSE_SECONDS)
