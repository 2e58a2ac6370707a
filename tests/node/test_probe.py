"""The probe decides by the first thing that is missing, and says which."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.node import probe, tier
from tests.support.paths import ROOT

_FIRST = """\
24 23 0:5 / /sys/fs/cgroup rw - tmpfs tmpfs rw
25 24 0:6 / {folder}/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
26 24 0:7 / {folder}/cpuset rw - cgroup cgroup rw,cpuset
27 24 0:8 / {folder}/memory rw - cgroup cgroup rw,memory
28 24 0:9 / {folder}/pids rw - cgroup cgroup rw,pids
29 24 0:10 / {folder}/unified rw shared:9 - cgroup2 cgroup2 rw
"""
_SECOND = "25 24 0:6 / {folder} rw shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"


def test_the_first_missing_thing_is_the_reason() -> None:
    asked = []

    def check(answer: str | None) -> str | None:
        asked.append(answer)
        return answer

    checks = [lambda: check(None), lambda: check("it needs a"), lambda: check("it needs b")]
    assert probe.why_not(checks) == "it needs a"
    assert asked == [None, "it needs a"]
    assert probe.why_not([lambda: None]) is None


@pytest.mark.parametrize(
    ("held", "lacking"),
    [
        (0x1FFFFFFFFFF, None),
        (0x1FFFEFFFFFF, None),  # without CAP_SYS_RESOURCE
        (0x1FFFFDFFFFF, "it needs CAP_SYS_ADMIN"),
        (0, "CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_KILL"),
    ],
)
def test_a_capability_that_a_node_needs(held: int, lacking: str | None) -> None:
    found = probe.missing_capability(f"Name:\tx\nCapPrm:\t0\nCapEff:\t{held:016x}\nCapBnd:\t0\n")
    assert found is None if lacking is None else lacking in str(found)


def test_cgroups_of_either_version(tmp_path: Path) -> None:
    first = _FIRST.format(folder=tmp_path)
    for name in ("cpu,cpuacct", "cpuset", "memory", "pids"):
        (tmp_path / name).mkdir()
    assert [path.name for path in probe.hierarchies(first)] == ["cpu,cpuacct", "cpuset", "memory", "pids"]
    assert [path.name for path in probe.all_hierarchies(first)][-2:] == ["pids", "unified"]
    assert probe.unusable_cgroups(first) is None
    assert not list((tmp_path / "memory").iterdir())
    assert (
        probe.unusable_cgroups("".join(first.splitlines(keepends=True)[:-2])) == "it needs the cgroup controllers pids"
    )
    second = _SECOND.format(folder=tmp_path)
    assert probe.hierarchies(second) == probe.all_hierarchies(second) == [tmp_path]
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
    assert probe.unusable_cgroups(second) is None
    (tmp_path / "cgroup.controllers").write_text("cpu io\n")
    assert probe.unusable_cgroups(second) == "it needs the cgroup controllers cpuset, memory, pids"


def test_no_hierarchy_and_one_that_cannot_be_written(tmp_path: Path) -> None:
    assert probe.unusable_cgroups("24 23 0:5 / /proc rw - proc proc rw\n") == (
        "it needs a mounted cgroup hierarchy, version 1 or 2"
    )
    found = probe.unusable_cgroups(_FIRST.format(folder=tmp_path / "absent"))
    assert str(found).startswith("it needs a writable cgroup hierarchy: ")


@pytest.mark.parametrize(
    ("value", "why_not", "long", "wanted"),
    [
        ("", None, False, False),
        ("0", None, False, False),
        ("1", None, False, True),
        ("1", None, True, False),
        ("all", None, True, True),
        ("1", "it needs root", False, False),
        ("all", "it needs root", True, False),
    ],
)
def test_which_tests_a_run_has(value: str, why_not: str | None, long: bool, wanted: bool) -> None:
    assert tier.wanted(value, why_not, long=long) is wanted


@pytest.mark.parametrize(("value", "asked"), [(None, ""), ("", ""), ("0", ""), ("1", "1"), ("all", "all")])
def test_a_run_with_zero_asks_for_no_node_tier(value: str | None, asked: str) -> None:
    assert tier.asked(value) == asked


def test_root_of_a_user_namespace_carries_no_node() -> None:
    """As in a container without the machine's own rights: every capability is there, and little is allowed."""
    asking = "from tests.node import probe; print(probe.why_not())"
    command = ["unshare", "--user", "--map-root-user", sys.executable, "-c", asking]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    if "unshare" in done.stderr and done.returncode:
        pytest.skip("no user namespace can be made here")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("it needs ")


_RUN = """
import os
from tests.node import probe
asked = []
def why_not():
    asked.append(1)
    return None if len(asked) % 2 else "it needs luck"
probe.why_not = why_not
import pytest
words = os.environ["WORDS"].split()
raise SystemExit(pytest.main(["-q", "-p", "no:cacheprovider", *words, "tests/node/test_cgroup.py"]))
"""


@pytest.mark.parametrize("words", ["", "-n 2 --dist loadgroup"])
def test_a_run_asks_the_probe_once_and_its_workers_agree(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORDS", words)
    monkeypatch.setenv("NODE", "1")
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    done = subprocess.run([sys.executable, "-c", _RUN], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "left out" not in done.stdout
