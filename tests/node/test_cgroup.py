"""A run's cgroup, as files: what version 1 and version 2 want written."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from tests.node import cgroup as cgroups
from tests.node.cgroup import Cgroup, switch_off, switched_on


def test_version_1_copies_the_cpuset_of_the_root(tmp_path: Path) -> None:
    for name in ("cpuset", "memory"):
        (tmp_path / name).mkdir()
    (tmp_path / "cpuset" / "cpuset.cpus").write_text("0-1\n")
    (tmp_path / "cpuset" / "cpuset.mems").write_text("0\n")
    Cgroup("run", [tmp_path / "cpuset", tmp_path / "memory"]).make()
    for folder in ("run", "run/system"):
        assert (tmp_path / "cpuset" / folder / "cpuset.cpus").read_text() == "0-1\n"
        assert (tmp_path / "cpuset" / folder / "cpuset.mems").read_text() == "0\n"
        assert not list((tmp_path / "memory" / folder).glob("cpuset*"))


def test_a_further_kubelets_child_has_the_cpuset_of_the_run(tmp_path: Path) -> None:
    (tmp_path / "cpuset.cpus").write_text("0-1\n")
    (tmp_path / "cpuset.mems").write_text("0\n")
    cgroup = Cgroup("run", [tmp_path])
    cgroup.make()
    assert cgroup.add("second") == "/run/second"
    assert (tmp_path / "run" / "second" / "cpuset.cpus").read_text() == "0-1\n"
    (tmp_path / "run" / "second" / "cgroup.procs").write_text("15\n")
    assert cgroup.members() == {15}


def test_version_2_hands_the_controllers_down(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu io memory hugetlb pids\n")
    Cgroup("run", [tmp_path]).make()
    for folder in (tmp_path, tmp_path / "run"):
        assert (folder / "cgroup.subtree_control").read_text() == "+cpuset +cpu +memory +pids +io"
    # A cgroup with processes of its own hands nothing down, so they are in a child.
    assert not (tmp_path / "run" / "system" / "cgroup.subtree_control").exists()


def test_members_are_those_of_all_below_in_every_hierarchy(tmp_path: Path) -> None:
    for path, text in {
        "a/run/system": "11\n12\n",
        "a/run/pods/one": "13\n",
        "b/run": "14\n",
        "a/other": "99\n",
    }.items():
        (tmp_path / path).mkdir(parents=True)
        (tmp_path / path / "cgroup.procs").write_text(text)
    assert Cgroup("run", [tmp_path / "a", tmp_path / "b"]).members() == {11, 12, 13, 14}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A version 2 root that answers writes as the kernel does; the machine uses `memory` itself."""

    def write(folder: Path, words: str) -> None:
        file = folder / "cgroup.subtree_control"
        on = set(file.read_text().split()) if file.exists() else set()
        for word in words.split():
            name = word[1:]
            children = (child / "cgroup.subtree_control" for child in folder.iterdir() if child.is_dir())
            if word[0] == "-" and any(name in child.read_text().split() for child in children if child.exists()):
                raise OSError(errno.EBUSY, "a child has it handed down")
            on = on | {name} if word[0] == "+" else on - {name}
        file.write_text(" ".join(sorted(on)))

    monkeypatch.setattr(cgroups, "_write_control", write)
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu io memory hugetlb pids\n")
    (tmp_path / "cgroup.subtree_control").write_text("memory\n")
    return tmp_path


def _end(run: Cgroup) -> None:
    for folder in run.folders:
        (folder / "cgroup.subtree_control").unlink()
    run.remove()


def test_controllers_of_version_2_that_a_run_switched_on_are_off_after_it(root: Path) -> None:
    run = Cgroup("run", [root])
    switching = run.switching_on()
    assert switching == {str(root): ["cpu", "cpuset", "io", "pids"]}
    run.make()
    assert switched_on(root) == {"cpu", "cpuset", "io", "memory", "pids"}
    _end(run)
    switch_off(switching)
    assert switched_on(root) == {"memory"}
    switch_off(switching)  # a removal may be repeated


def test_a_controller_that_another_run_uses_stays_on_until_that_ends(root: Path) -> None:
    first, second = Cgroup("first", [root]), Cgroup("second", [root])
    switching = first.switching_on()
    first.make()
    assert second.switching_on() == {}
    second.make()
    _end(first)
    switch_off(switching)
    assert switched_on(root) == {"cpu", "cpuset", "io", "memory", "pids"}
    _end(second)
    switch_off(switching)
    assert switched_on(root) == {"memory"}


def test_version_1_has_no_controllers_to_switch_on(tmp_path: Path) -> None:
    assert Cgroup("run", [tmp_path]).switching_on() == {}
