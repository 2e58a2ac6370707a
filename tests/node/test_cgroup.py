"""A run's cgroup, as files: what version 1 and version 2 want written."""

from __future__ import annotations

from pathlib import Path

from tests.node.cgroup import Cgroup


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
