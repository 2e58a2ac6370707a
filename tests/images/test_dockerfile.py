"""The Dockerfile, read and linted: it is built where an engine runs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tools.images.rootfs import SOURCE
from tools.images.targets import TARGETS

_DOCKERFILE = SOURCE / "Dockerfile"


@dataclass
class Stage:
    base: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def values(self, instruction: str) -> list[str]:
        return [value for name, value in self.instructions if name == instruction]


def _stages() -> dict[str, Stage]:
    lines = [line for line in _DOCKERFILE.read_text().splitlines() if not line.startswith("#")]
    stages: dict[str, Stage] = {}
    for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        if match := re.fullmatch(r"FROM (\S+) AS (\S+)", line):
            stages[match[2]] = stage = Stage(match[1])
        elif line:
            name, _, value = line.partition(" ")
            assert name != "FROM", f"a stage without a name: {line}"
            stage.instructions.append((name, value))
    return stages


def test_the_linter_finds_nothing() -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    hadolint = shutil.which("hadolint", path=path)
    if hadolint is None:
        pytest.skip("hadolint is not installed; it comes with requirements/dev.txt: make setup")
    done = subprocess.run([hadolint, "--no-color", _DOCKERFILE], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_every_base_is_pinned_by_digest() -> None:
    seen: set[str] = {"scratch"}
    for name, stage in _stages().items():
        assert stage.base in seen or re.fullmatch(r"[\w./-]+:[\w.-]+@sha256:[0-9a-f]{64}", stage.base), stage.base
        seen.add(name)


@pytest.mark.parametrize("name", TARGETS)
def test_a_final_stage_has_files_and_a_user_only(name: str) -> None:
    stage = _stages()[name]
    assert stage.base == "scratch"
    assert [instruction for instruction, _ in stage.instructions] == ["LABEL", "COPY", "COPY", "USER", "ENTRYPOINT"]
    assert stage.values("COPY") == [f"--from={name}-foundation /rootfs /", f"--from={name}-files /own /"]
    assert stage.values("USER") == ["65532:65532"]
    assert json.loads(stage.values("ENTRYPOINT")[0]) == [f"/{TARGETS[name].entrypoint}"]
    for part, folder in (("foundation", "/rootfs"), ("own", "/own")):
        [assembled] = _stages()[f"{name}-{'files' if part == 'own' else part}"].values("RUN")
        wanted = f"/opt/tools/bin/python -m tools.images.rootfs {part} {name} {folder} /opt/environment"
        assert assembled.endswith(wanted)


@pytest.mark.parametrize("name", TARGETS)
def test_a_change_of_our_modules_leaves_the_foundations_layer(name: str) -> None:
    """It is laid before our modules are copied, and before the commit's time is known."""
    stages = _stages()
    foundation = stages[f"{name}-foundation"]
    assert foundation.base == "tools"
    copied = stages["tools"].values("COPY") + foundation.values("COPY")
    assert {value.split()[0] for value in copied} == {
        "tools/images/generator.txt",
        "tools/__init__.py",
        "tools/images",
        TARGETS[name].requirements,
    }
    assert not stages["tools"].values("ARG") + foundation.values("ARG")


def test_packages_are_installed_by_hash_and_never_built() -> None:
    commands = [command for stage in _stages().values() for command in stage.values("RUN") if "pip install" in command]
    assert commands
    assert all("--require-hashes" in command and "--only-binary :all:" in command for command in commands)


def test_the_build_context_lists_its_files() -> None:
    lines = [line for line in (SOURCE / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert lines[0] == "*"
    sources = {file.split("/")[0] for target in TARGETS.values() for file in (target.requirements, *target.modules)}
    assert {name.split(".")[0] for name in sources} <= {line[1:] for line in lines if line.startswith("!")}


def test_without_a_builder_it_says_so_and_succeeds(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tools.images.build"],
        cwd=SOURCE,
        env={"PATH": str(tmp_path), "SOURCE_DATE_EPOCH": "0"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("images: skipped. Neither docker nor podman answers")
    assert "buildah and mmdebstrap not installed" in done.stdout
