"""What an image carries: small, static, the same bytes each time."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests.sidecar.exec.container import CONTAINER, RUN, USAGE, Report
from tests.support import packages
from tests.support.exec_helper import SOURCE, build_helper

KIB = 1024


def readelf(*words: str | Path) -> str:
    environment = {**os.environ, "LC_ALL": "C"}
    return subprocess.run(["readelf", "-W", *words], env=environment, capture_output=True, text=True, check=True).stdout


def test_is_small(shipped: Path) -> None:
    assert shipped.stat().st_size <= 64 * KIB


def test_is_static_position_independent_and_stripped(shipped: Path) -> None:
    header, segments = readelf("--file-header", shipped), readelf("--segments", shipped)
    assert "DYN (" in header
    assert "INTERP" not in segments
    assert "NEEDED" not in readelf("--dynamic", shipped)
    assert "no relocations" in readelf("--relocs", shipped)
    assert ".symtab" not in readelf("--sections", shipped)


def test_no_page_is_writable_and_executable(shipped: Path) -> None:
    flags: dict[str, list[str]] = {}
    for line in readelf("--segments", shipped).splitlines():
        words = line.split()
        if words and words[0] in ("LOAD", "GNU_STACK"):
            flags.setdefault(words[0], []).append("".join(words[6:-1]))
    assert flags["GNU_STACK"] == ["RW"]
    assert len(flags["LOAD"]) >= 2
    assert not [each for each in flags["LOAD"] if "W" in each and "E" in each]


def test_every_object_takes_part_in_branch_protection(shipped: Path) -> None:
    notes = readelf("--notes", shipped)
    assert "IBT, SHSTK" in notes or "BTI, PAC" in notes


def test_two_builds_are_the_same_bytes(shipped: Path, tmp_path: Path) -> None:
    """From another folder too: no path goes in."""
    elsewhere = tmp_path / "a-rather-different-place"
    shutil.copytree(SOURCE, elsewhere, ignore=shutil.ignore_patterns("build"))
    again = build_helper(tmp_path / "again", source=elsewhere)
    assert again.read_bytes() == shipped.read_bytes()


def test_runs_on_aarch64(tmp_path: Path, application: Path, compiler: str) -> None:
    """The helper under emulation; what it becomes is this machine's own program."""
    packages.require(**{"aarch64-linux-gnu-gcc": "gcc-aarch64-linux-gnu", "qemu-aarch64-static": "qemu-user-static"})
    cross, emulator = "aarch64-linux-gnu-gcc", "qemu-aarch64-static"
    helper = build_helper(tmp_path / "aarch64", f'-DRUN_DIRECTORY=\\"{RUN}\\"', compiler=cross)
    assert helper.stat().st_size <= 64 * KIB
    (tmp_path / RUN / "env").mkdir(parents=True)
    (tmp_path / RUN / "env" / CONTAINER).write_bytes(b"A=1\0B=2\0")
    (tmp_path / RUN / "ready").touch()
    words: list[str | Path] = [emulator, helper, CONTAINER, "--", application, "x"]
    done = subprocess.run(words, cwd=tmp_path, env={"B": "0"}, capture_output=True, check=True, timeout=120)
    assert Report.parse(done.stdout).environment == [b"B=2", b"A=1"]
    assert subprocess.run([emulator, helper], capture_output=True).returncode == USAGE
