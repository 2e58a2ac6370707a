"""What a run says about the tests that it left out."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.packages import FILE, named_in, purposes, without
from tests.support.paths import ROOT
from tests.support.skips import summary


def test_skips_are_grouped_by_tier_and_reason_and_name_their_packages() -> None:
    skipped = [
        ("tests/sidecar/exec/test_a.py::test_x[1]", without("clang")),
        ("tests/sidecar/exec/test_a.py::test_x[2]", without("clang")),
        ("tests/sidecar/test_b.py::test_y", "a small tmpfs needs root"),
        ("tests/cluster/test_c.py::test_z", without("faketime")),
    ]
    assert summary(skipped) == [
        "tests/cluster: 1",
        f"     1 {without('faketime')}",
        "tests/sidecar: 3",
        f"     2 {without('clang')}",
        "     1 a small tmpfs needs root",
        "`make packages`, as root, installs what is missing: clang faketime",
    ]


def test_a_reason_names_only_a_listed_package() -> None:
    assert named_in(without("jq")) == "jq"
    assert named_in("a small tmpfs needs root") is None
    with pytest.raises(KeyError):
        without("not-listed")


def test_each_package_has_a_purpose_and_they_are_sorted() -> None:
    assert list(purposes()) == sorted(purposes())
    assert all(purposes().values())
    names = re.compile(r"[a-z0-9][a-z0-9.+-]+")
    assert all(names.fullmatch(name) for name in purposes()), FILE


@pytest.mark.parametrize("workers", [(), ("-n", "1")])
def test_a_run_ends_with_what_it_left_out(tmp_path: Path, workers: tuple[str, ...]) -> None:
    (tmp_path / "test_it.py").write_text(
        "import pytest\n\n"
        "def test_one():\n    pytest.skip('no such hardware')\n\n"
        "@pytest.mark.skipif(True, reason='no such hardware')\ndef test_two():\n    pass\n"
    )
    plugins = ["-p", "tests.support.skips", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", "-q", *plugins, *workers, f"--rootdir={tmp_path}", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert "left out: 2" in done.stdout
    assert "     2 no such hardware\n" in done.stdout


_MAY_NOT_BE_ABSENT = {
    "chromium-headless-shell": "chromium-headless-shell",
    "prometheus": "prometheus",
    "promtool": "prometheus",
}


@pytest.mark.parametrize("ci", ["1", ""], ids=["in CI", "elsewhere"])
def test_without_a_browser_or_a_prometheus_ci_fails_and_a_developer_reads_what_was_left_out(
    tmp_path: Path, ci: str
) -> None:
    (tmp_path / "test_it.py").write_text(
        "import pytest\nfrom tests.support.packages import require\n\n"
        f"@pytest.mark.parametrize('found', {list(_MAY_NOT_BE_ABSENT.items())})\n"
        "def test_one(found):\n    require(**dict([found]))\n"
    )
    plugins = ["-p", "tests.support.skips", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", "-q", *plugins, f"--rootdir={tmp_path}", str(tmp_path)]
    # Nothing is on PATH, so no program is.
    environment = {**os.environ, "PATH": str(tmp_path), "CI": ci}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=300)
    for package in _MAY_NOT_BE_ABSENT.values():
        assert without(package) in done.stdout
    if ci:
        assert (done.returncode, "3 failed" in done.stdout) == (1, True), done.stdout
    else:
        assert (done.returncode, "left out: 3" in done.stdout) == (0, True), done.stdout
        assert "installs what is missing: chromium-headless-shell prometheus" in done.stdout


@pytest.mark.parametrize(("code", "ci"), [(0, "1"), (1, "")], ids=["packages installed", "no mirror"])
def test_the_script_of_ci_says_that_it_is_ci_once_it_has_installed_the_packages(
    tmp_path: Path, code: int, ci: str
) -> None:
    said = tmp_path / "said"
    programs = {
        "make": f'echo "$* CI=${{CI:-}} NODE=$NODE" >> {said}; [ "$1" != packages ] || exit {code}',
        "id": "echo 0",
        "apt-get": "true",
    }
    for name, text in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    script = tmp_path / "checkout" / ".ci" / "run"
    script.parent.mkdir(parents=True)
    shutil.copy(ROOT / ".ci" / "run", script)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    environment.pop("CI", None)
    done = subprocess.run([str(script)], env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert said.read_text().splitlines() == ["packages CI= NODE=1", f"lint CI={ci} NODE=1", f"test CI={ci} NODE=1"]
