"""Completion as a person at a shell sees it: real bash, fish, zsh and kubectl ask the real command."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import pty
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cli.completion.candidates import candidates
from cli.completion.scripts import SCRIPTS
from cli.main import COMMANDS, build_parser, main
from tests.support.packages import require
from tests.support.until import SECONDS

BIN = Path(sys.executable).parent


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A shell that finds the installed command, in a folder with two files."""
    (tmp_path / "service.yaml").write_text("")
    (tmp_path / "a file.yaml").write_text("")
    for shell, script in SCRIPTS.items():
        (tmp_path / f"script.{shell}").write_text(script)
    return {"PATH": f"{BIN}:{os.environ['PATH']}", "HOME": str(tmp_path), "TERM": "dumb", "LC_ALL": "C.UTF-8"}


def words(*line: str) -> list[str]:
    parser = build_parser(line[0] if len(line) > 1 else "check")
    return [word for word, _ in candidates(parser, line).words]


def test_the_first_word_is_a_command() -> None:
    assert words("") == list(COMMANDS)
    assert words("mig") == ["migrate"]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_of_every_command_is_completed(command: str) -> None:
    parser = argparse.ArgumentParser()
    importlib.import_module(COMMANDS[command]).configure(parser)
    long = {option for option in parser._option_string_actions if option.startswith("--")}
    assert set(words(command, "--")) == long


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (("check", "--mode", ""), ["audit", "inject", "enforce"]),
        (("check", "--mode=e"), ["--mode=enforce"]),
        (("check", "-o", "s"), ["sarif"]),
        (("kms", "at"), ["attest"]),
        (("vault", "setup", "--dry"), ["--dry-run"]),
        (("vault", "--dry"), []),
        (("migrate", "--dry-run", "--dry"), []),
        (("migrate", "--env", "A", "--en"), ["--env"]),
        (("migrate", "--env", ""), []),
        (("migrate", "--", "--dry"), []),
        (("completion", ""), ["bash", "zsh", "fish"]),
        (("completion", "bash", ""), ["--help"]),
        (("nonsense", "--"), ["--help", "--version"]),
    ],
)
def test_what_fits_behind_some_words(line: tuple[str, ...], expected: list[str]) -> None:
    assert words(*line) == expected


def test_a_file_fits_where_an_option_takes_one(capsys: pytest.CaptureFixture[str]) -> None:
    for line, fits in ((["migrate", "-f", ""], True), (["check", "--mode", ""], False), (["review", ""], True)):
        assert main(["__complete", *line]) == 0
        assert capsys.readouterr().out.splitlines()[-1] == (":0" if fits else ":4"), line


def test_bash_completes_words_values_and_files(environment: dict[str, str], tmp_path: Path) -> None:
    require(bash="bash")
    program = """
        source script.bash
        ask() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _morphisms; printf '<%s>' "${COMPREPLY[@]}"; echo; }
        ask morphisms migr
        ask morphisms check --mode = e
        ask morphisms migrate --dry-run -f ''
    """
    done = subprocess.run(
        ["bash", "-c", program], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    command, value, files = done.stdout.splitlines()
    assert (command, value) == ("<migrate>", "<enforce>")
    assert "<a file.yaml>" in files
    assert "<service.yaml>" in files


def test_a_person_presses_tab_in_bash(environment: dict[str, str], tmp_path: Path) -> None:
    require(bash="bash")
    master, slave = pty.openpty()
    shell = subprocess.Popen(
        ["bash", "--norc", "--noprofile", "-i"],
        env={**environment, "PS1": "READY>"},
        cwd=tmp_path,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
    )
    os.close(slave)
    try:
        _type(master, "source script.bash; echo sour''ced\r", "sourced")
        _type(master, "morphisms migr\t", "migrate ")
        _type(master, "-f ser\t", "service.yaml ")
    finally:
        shell.kill()
        shell.wait()
        os.close(master)


def _type(terminal: int, keys: str, expected: str) -> None:
    """Send keys; return when the terminal shows the expected text."""
    os.write(terminal, keys.encode())
    shown, deadline = "", time.monotonic() + SECONDS
    while expected not in shown:
        assert select.select([terminal], [], [], max(0.0, deadline - time.monotonic()))[0], shown
        shown += os.read(terminal, 4096).decode(errors="replace")


def test_fish_completes_words_and_says_what_they_do(environment: dict[str, str], tmp_path: Path) -> None:
    require(fish="fish")

    def ask(line: str) -> list[str]:
        program = f"source script.fish; complete -C '{line}'"
        return subprocess.run(
            ["fish", "--no-config", "-c", program],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
        ).stdout.splitlines()

    assert ask("morphisms migrate --dr") == ["--dry-run\tprint what would change"]
    assert "service.yaml" in ask("morphisms migrate -f ")


def test_zsh_completes_words_and_says_what_they_do(environment: dict[str, str], tmp_path: Path) -> None:
    require(zsh="zsh")
    program = """
        compdef() { :; }
        _describe() { print -rl -- "${(@P)2}"; }
        _files() { print FILES; }
        source script.zsh
        ask() { words=("$@"); CURRENT=$#; _morphisms; }
        ask morphisms migrate --vault-p
        ask morphisms migrate -f ''
    """
    done = subprocess.run(
        ["zsh", "-f", "-c", program], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.stdout.splitlines() == [
        "--vault-path:the secret, as references name it: MOUNT/PATH, or ~/PATH for a Service's own prefix",
        "FILES",
    ]


def test_kubectl_completes_the_plugin_by_itself(environment: dict[str, str], tmp_path: Path) -> None:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("no kubectl on PATH")
    version = json.loads(subprocess.check_output([kubectl, "version", "--client", "-o", "json"], env=environment))
    if int(version["clientVersion"]["minor"].rstrip("+")) < 26:
        pytest.skip("kubectl completes plugins since 1.26, and the one on PATH is older")
    done = subprocess.run(
        [kubectl, "__complete", "morphisms", "check", "--mode", "e"],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.stdout.splitlines() == ["enforce", ":4"]
