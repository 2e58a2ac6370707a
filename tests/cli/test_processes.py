"""The commands as people and CI run them: arguments, standard input, exit codes, help."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib

import pytest
import yaml

from tests.cli.recorded import pod, recorded, service
from tests.support.paths import REVIEWS, ROOT

COMMANDS = ("inject", "render", "check")


def morphisms(*arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cli.main", *arguments], input=text, capture_output=True, text=True, timeout=300
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(command: str) -> None:
    result = morphisms(command, "--help")
    assert (result.returncode, result.stderr) == (0, "")
    assert f"example:\n  morphisms {command} " in result.stdout


def test_render_names_the_limits_of_its_knowledge() -> None:
    text = morphisms("render", "--help").stdout
    assert "queue-proxy" in text
    assert "it, the entrypoint of their image is looked up by digest." in text
    assert (
        "With --cluster it writes a measured Service, its guest policy and the verifier's record into a folder." in text
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_unknown_options_are_unusable_input(command: str) -> None:
    assert morphisms(command, "--nonsense").returncode == 2


def test_inject_reads_standard_input_and_keeps_messages_apart() -> None:
    result = morphisms("inject", text=yaml.safe_dump(recorded("pods-create-payments-by-replicaset-controller")))
    assert result.returncode == 0
    [document] = yaml.safe_load_all(result.stdout)
    assert document["spec"]["initContainers"][0]["name"] == "morphisms-init"
    assert "warning: [secrets/plaintext-env]" in result.stderr
    assert "\x1b" not in result.stdout + result.stderr


def test_render_reads_standard_input() -> None:
    result = morphisms("render", "-f", "-", text=yaml.safe_dump(service({})))
    assert result.returncode == 0
    assert yaml.safe_load(result.stdout)["kind"] == "Pod"


@pytest.mark.parametrize(("spec", "code"), [({}, 0), ({"hostPID": True}, 1), ({"containers": "x"}, 2)])
def test_checks_exit_code_is_for_ci(spec: dict[str, object], code: int) -> None:
    result = morphisms("check", "-o", "json", text=json.dumps(pod(**spec)))
    assert result.returncode == code
    assert bool(result.stdout) == (code < 2)
    assert "Traceback" not in result.stderr


def test_version() -> None:
    """Of the project's file: images hold no metadata of the package, and the command runs there as well."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    result = morphisms("--version")
    assert (result.returncode, result.stdout, result.stderr) == (0, f"morphisms {project['version']}\n", "")
    command = [sys.executable, "-m", "sidecar.main", "--version"]
    sidecar = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert (sidecar.returncode, sidecar.stdout) == (0, f"morphisms-init {project['version']}\n")


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (("chek", "-f", "x"), "did you mean check?"),
        (("check", "--snapsot", "x"), "did you mean --snapshot?"),
        (("check", "--snapsot=hunter2"), "did you mean --snapshot?"),
        (("check", "--mode", "enforced"), "did you mean enforce?"),
        (("review", "--path", "/mutate/pods"), "did you mean /mutate/pod?"),
        (("vault", "setp"), "did you mean setup?"),
    ],
)
def test_a_mistyped_word_is_answered_with_the_one_that_was_meant(words: tuple[str, ...], meant: str) -> None:
    result = morphisms(*words)
    assert (result.returncode, result.stdout) == (2, "")
    assert meant in result.stderr
    assert "hunter2" not in result.stderr


def test_a_word_that_is_near_none_is_answered_with_all() -> None:
    result = morphisms("zzzzzz")
    assert result.returncode == 2
    assert "check" in result.stderr
    assert "did you mean" not in result.stderr


def test_a_stream_of_json_objects_is_read_as_documents() -> None:
    text = json.dumps(pod()) + json.dumps(pod(hostPID=True), indent=2) + "\n"
    result = morphisms("check", "-o", "json", text=text)
    assert result.returncode == 1
    assert json.loads(result.stdout)["summary"]["objects"] == 2


@pytest.mark.parametrize(("mode", "code"), [("none", 0), ("audit", 0), ("inject", 0), ("enforce", 1), ("strict", 2)])
def test_review_takes_the_mode_from_the_path(mode: str, code: int) -> None:
    text = (REVIEWS / "pods-create-payments-by-replicaset-controller.json").read_text()
    result = morphisms("review", "--path", f"/validate/pod/{mode}", text=text)
    assert result.returncode == code, result.stderr


def test_review_reads_a_file_with_a_byte_order_mark() -> None:
    text = (REVIEWS / "pods-create-payments-by-replicaset-controller.json").read_text()
    plain, marked = (morphisms("review", "--path", "/mutate/pod", text=mark + text) for mark in ("", "\ufeff"))
    assert (marked.returncode, marked.stdout, marked.stderr) == (plain.returncode, plain.stdout, "")
