"""Records of the sandboxes that there are: what to end when a run has died, and what to put back of the machine's own.

Several runs share a machine, and each may end in whatever way. The machine's own is read and changed under one lock,
and the last of the runs that rest on a change puts it back.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from tests.node.cgroup import Cgroup, switch_off

RECORDS: Final = Path("/run/morphisms-sandboxes")


@dataclass(frozen=True)
class Record:
    """What there is of one sandbox, as it lies in RECORDS.

    `controllers` of cgroup version 2, by hierarchy: those that were off before the first of the present sandboxes.
    """

    name: str
    folder: str
    hierarchies: list[str]
    holder: int = 0
    stays: bool = False
    controllers: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def new(cls, name: str, folder: str, hierarchies: Sequence[Path], *, stays: bool = False) -> Record:
        """One that is written before anything is made that it describes. Only while `alone`."""
        controllers = Cgroup(name, hierarchies).switching_on()
        for path, names in _claimed().items():
            controllers[path] = sorted({*controllers.get(path, ()), *names})
        record = cls(name, folder, [str(path) for path in hierarchies], stays=stays, controllers=controllers)
        record.write()
        return record

    @property
    def file(self) -> Path:
        return RECORDS / f"{self.name}.json"

    @property
    def lock(self) -> Path:
        """Locked by the guard; apart from the record, which is replaced."""
        return self.file.with_suffix(".lock")

    @property
    def cgroup(self) -> Cgroup:
        return Cgroup(self.name, [Path(path) for path in self.hierarchies])

    def write(self) -> None:
        """Only while `alone`."""
        unfinished = self.file.with_suffix(".new")
        unfinished.write_text(json.dumps(asdict(self)))
        unfinished.replace(self.file)

    def forget(self) -> None:
        """Put back what no other record claims. May be repeated; only while `alone`, and when its cgroup is gone."""
        if not self.file.exists():
            return
        claimed = _claimed(but=self)
        switch_off({path: sorted({*names} - claimed.get(path, set())) for path, names in self.controllers.items()})
        self.lock.unlink(missing_ok=True)
        self.file.unlink()


def read_record(file: Path) -> Record:
    """Raises FileNotFoundError when there is none."""
    return Record(**json.loads(file.read_text()))


def records() -> list[Record]:
    """All that there are."""
    found = []
    for file in sorted(RECORDS.glob("*.json")):
        with contextlib.suppress(FileNotFoundError):
            found.append(read_record(file))
    return found


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Meanwhile no other process makes or forgets a record. The folder is the lock, and goes when it is empty."""
    while True:
        RECORDS.mkdir(mode=0o700, exist_ok=True)
        try:
            folder = os.open(RECORDS, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            if not _is_there(folder):  # removed while this process waited
                continue
            try:
                yield
            finally:
                for unfinished in RECORDS.glob("*.new"):  # of a process that was killed
                    unfinished.unlink()
                with contextlib.suppress(OSError):  # there are records
                    RECORDS.rmdir()
            return
        finally:
            os.close(folder)


@contextlib.contextmanager
def guarding(record: Record) -> Iterator[bool]:
    """Whether this process guards it meanwhile, as the only one. Enter it while `alone`, and leave it when you like."""
    with record.lock.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def claimed_by_others(record: Record, path: str, name: str) -> bool:
    """Whether another sandbox rests on this controller too."""
    return name in _claimed(but=record).get(path, set())


def _claimed(but: Record | None = None) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for record in records():
        if but is None or record.name != but.name:
            for path, names in record.controllers.items():
                found.setdefault(path, set()).update(names)
    return found


def _is_there(folder: int) -> bool:
    try:
        return os.path.samestat(os.fstat(folder), RECORDS.stat())
    except FileNotFoundError:
        return False
