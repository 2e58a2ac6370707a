"""Everything that reads what others wrote, with random input under the address and undefined-behaviour sanitizers."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.sidecar.exec.container import HERE
from tests.support import packages
from tests.support.exec_helper import SOURCE

COUNT = 500_000
SECONDS = 8
PURE = ("names.c", "environ.c", "lookup.c", "message.c")
SOURCES: list[str | Path] = [HERE / "fuzz.c", *(SOURCE / name for name in PURE)]
# Small bounds are met often.
FLAGS = [
    "-std=gnu17",
    "-g",
    "-O1",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-DMAX_PAIRS=6",
    "-DMAX_STRING=12",
    "-DMAX_EXPANDED=20",
]


def compile_with(compiler: str, sanitizers: str, program: Path, *flags: str) -> None:
    """Skips where the compiler comes without the sanitizers' libraries; fails where it rejects the program."""
    sanitize = [f"-fsanitize={sanitizers}", "-fno-sanitize-recover=undefined"]
    probe = program.with_name("probe.c")
    entry = "LLVMFuzzerTestOneInput" if "fuzzer" in sanitizers else "main"
    probe.write_text(f"int {entry}(void) {{ return 0; }}\n")
    if subprocess.run([compiler, *sanitize, "-o", program, probe], capture_output=True).returncode:
        pytest.skip(f"{compiler} cannot build with {sanitizers}")
    subprocess.run([compiler, *FLAGS, *flags, *sanitize, "-o", program, *SOURCES], check=True)


def test_random_input_meets_a_second_statement_of_the_answer(compiler: str, tmp_path: Path) -> None:
    program = tmp_path / "fuzz"
    compile_with(compiler, "address,undefined", program)
    done = subprocess.run([program, str(COUNT)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    # Input that is refused at once would prove little: one in twenty must get as far as the merging.
    accepted = int(done.stdout.split(" inputs, ")[1].split()[0])
    assert accepted > COUNT / 20
    assert int(done.stdout.split(" accepted, ")[1].split()[0]) > COUNT / 20, "few pairs with a $"


def test_so_does_input_that_coverage_guides(tmp_path: Path) -> None:
    packages.require(clang="clang")  # the random driver above runs without it
    program = tmp_path / "fuzz"
    compile_with("clang", "fuzzer,address,undefined", program, "-DLIBFUZZER")
    words: list[str | Path] = [program, f"-max_total_time={SECONDS}", "-max_len=256", "-seed=1"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
