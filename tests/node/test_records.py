"""Runs on one machine overlap, and end or die in any order: its own settings are as they were after the last."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import multiprocessing
import os
import random
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.node import cgroup as cgroups
from tests.node import records as recorded
from tests.node.cgroup import switched_on
from tests.node.records import Record, alone, guarding, records
from tests.node.sandbox import remove, remove_leftovers

_OFFERED = ("cpu", "cpuset", "io", "memory", "pids")


class _Machine:
    """A version 2 root that answers writes as the kernel does, with a program of its own that uses `memory`."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = folder / "cgroup"
        self.root.mkdir()
        (self.root / "cgroup.controllers").write_text(" ".join(_OFFERED))
        (self.root / "cgroup.subtree_control").write_text("memory\n")
        monkeypatch.setattr(recorded, "RECORDS", folder / "records")
        monkeypatch.setattr(cgroups, "_write_control", self._write)
        monkeypatch.setattr(cgroups, "_remove", self._remove)

    def _write(self, folder: Path, words: str) -> None:
        file = folder / "cgroup.subtree_control"
        on = _on(folder)
        for word in words.split():
            name = word[1:]
            if word[0] == "-" and any(name in _on(child) for child in folder.iterdir() if child.is_dir()):
                raise OSError(errno.EBUSY, "a child has it handed down")
            if word[0] == "+" and folder != self.root and name not in switched_on(self.root):
                raise OSError(errno.ENOENT, "the parent has it switched off")
            on = on | {name} if word[0] == "+" else on - {name}
        file.write_text(" ".join(sorted(on)))

    @staticmethod
    def _remove(folder: Path) -> None:
        if folder.exists():
            (folder / "cgroup.subtree_control").unlink(missing_ok=True)
            folder.rmdir()

    def start(self, name: str) -> Record:
        with alone():
            record = Record.new(name, str(self.root.parent / name), [self.root])
            record.cgroup.make()
        return record

    @property
    def switched_on(self) -> set[str]:
        return switched_on(self.root)


def _on(folder: Path) -> set[str]:
    """Nothing for a cgroup that another process removes meanwhile."""
    with contextlib.suppress(FileNotFoundError):
        return switched_on(folder)
    return set()


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> _Machine:
    return _Machine(tmp_path, monkeypatch)


@settings(max_examples=40)
@given(data=st.data())
def test_after_the_last_of_any_runs_the_machine_is_as_before(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Each ends by itself, twice as a run and its guard do, or dies and is removed by the next."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        machine = _Machine(tmp_path_factory.mktemp("machine"), monkeypatch)
        alive: list[Record] = []
        for number in range(data.draw(st.integers(1, 8))):
            step = data.draw(st.sampled_from(["start", "end", "die"]))
            if step == "start" or not alive:
                alive.append(machine.start(f"run-{number}"))
                continue
            record = alive.pop(data.draw(st.integers(0, len(alive) - 1)))
            if step == "end":
                remove(record)
                remove(record)
            else:
                with contextlib.ExitStack() as guards:
                    for other in alive:
                        assert guards.enter_context(guarding(other))
                    remove_leftovers()
            assert machine.switched_on == (set(_OFFERED) if alive else {"memory"})
        for record in data.draw(st.permutations(alive)):
            remove(record)
        assert machine.switched_on == {"memory"}
        assert not recorded.RECORDS.exists()


def test_what_a_program_of_the_machine_switched_on_meanwhile_stays_on(machine: _Machine) -> None:
    record = machine.start("run")
    remove(record)
    cgroups._write_control(machine.root, "+cpu")
    remove(record)  # the run's own, after its guard's
    assert machine.switched_on == {"cpu", "memory"}


def test_a_run_that_was_killed_while_it_wrote_its_record_leaves_none(machine: _Machine) -> None:
    recorded.RECORDS.mkdir()
    (recorded.RECORDS / "run.new").write_text('{"name":')
    with alone():
        assert records() == []
    assert not recorded.RECORDS.exists()


def test_a_folder_of_records_that_was_removed_and_made_anew_is_no_lock(
    machine: _Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last to leave removed it while this process waited, and another process made it anew."""
    locked = []

    def flock(descriptor: int, operation: int) -> None:
        if not locked:
            recorded.RECORDS.rmdir()
            recorded.RECORDS.mkdir()
        locked.append(descriptor)
        fcntl.flock(descriptor, operation)

    monkeypatch.setattr(recorded, "fcntl", SimpleNamespace(flock=flock, LOCK_EX=fcntl.LOCK_EX))
    with alone():
        other = os.open(recorded.RECORDS, os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(other)


def test_processes_that_come_and_go_at_once_leave_nothing(machine: _Machine) -> None:
    """The last to leave removes the folder of the records while others wait for its lock."""
    processes = [multiprocessing.get_context("fork").Process(target=_come_and_go, args=(machine, n)) for n in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert machine.switched_on == {"memory"}
    assert not recorded.RECORDS.exists()


def _come_and_go(machine: _Machine, number: int) -> None:
    chance = random.Random(number)
    for turn in range(10):
        record = machine.start(f"run-{number}-{turn}")
        with alone():
            assert machine.switched_on == set(_OFFERED)
        if chance.random() < 0.5:
            remove(record)
        remove(record)
