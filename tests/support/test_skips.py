"""What a run says about the tests that it left out."""

from __future__ import annotations

import re
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
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert "left out: 2" in done.stdout
    assert "     2 no such hardware\n" in done.stdout
