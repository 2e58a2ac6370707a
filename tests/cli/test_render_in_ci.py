"""The workflow of docs/gitops.md, run as a CI would: a rendered repository passes, another one fails."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from cli.main import main
from tests.cli import rendering
from tests.support.paths import ROOT

PAGE: Final = (ROOT / "docs" / "gitops.md").read_text()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository in the page's layout, with one Service that is rendered."""
    arguments = rendering.write_inputs(tmp_path)
    service = tmp_path / "shop" / "payments"
    service.mkdir(parents=True)
    (tmp_path / "service.yaml").rename(service / "service.yaml")
    arguments[arguments.index("-f") + 1] = str(service / "service.yaml")
    assert main([*arguments, "-o", str(service / "out")]) == 0
    return tmp_path


def steps() -> dict[str, str]:
    """The workflow's steps by name."""
    for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL):
        document: Any = yaml.safe_load(block)
        if document.get("name") == "renderings":
            return {step["name"]: step["run"] for step in document["jobs"]["renderings"]["steps"]}
    raise AssertionError("the page has no workflow")


def compared(repository: Path) -> tuple[int, str]:
    """The exit code and the words of the step that compares."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    command = ["bash", "-e", "-c", steps()["Compare the renderings"]]
    done = subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_a_repository_passes_while_its_rendering_is_the_one_of_its_files(repository: Path) -> None:
    code, words = compared(repository)
    assert code == 0, words
    service = repository / "shop" / "payments" / "service.yaml"
    service.write_text(service.read_text().replace("it's blue", "it's green"))
    code, words = compared(repository)
    assert code == 1
    assert "container user-container: variable COLOUR has another value" in words


def test_a_digest_that_stays_trusted_has_to_stand_in_the_repository(repository: Path) -> None:
    service, old = repository / "shop" / "payments", "ab" * 32
    record = yaml.safe_load((service / "out" / "appraisal.yaml").read_text())
    text = (service / "out" / "appraisal.yaml").read_text()
    digest = record["hostData"][0]
    (service / "out" / "appraisal.yaml").write_text(text.replace(f"- {digest}\n", f"- {digest}\n- {old}\n"))
    assert compared(repository)[0] == 1, "an attacker's digest in the record alone"
    (service / "previous").write_text(f"{old}\n")
    code, words = compared(repository)
    assert code == 0, words
