"""The command: what goes where, and the exit code."""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import pytest

from cli.commands import convert

POD = """\
apiVersion: v1
kind: Pod
metadata:
  name: shop
  annotations:
    vault.hashicorp.com/agent-inject: "true"
    vault.hashicorp.com/{}: "true"
spec:
  containers: []
"""


def run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    convert.configure(parser)
    return convert.run(parser.parse_args(words))


def test_yaml_to_stdout_messages_to_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "pod.yaml"
    path.write_text(POD.format("agent-init-first"))
    assert run("-f", str(path)) == 0
    out, err = capsys.readouterr()
    assert out.startswith("apiVersion: v1\nkind: Pod\n")
    assert "vault.hashicorp.com" not in out
    assert err == (
        "note: Pod/shop: vault.hashicorp.com/agent-init-first: morphisms-init comes before each container that gets"
        " secrets\n"
    )


def test_an_annotation_that_stays_gives_exit_code_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(POD.format("tls-skip-verify").encode())))
    assert run("-f", "-") == 1
    out, err = capsys.readouterr()
    assert "vault.hashicorp.com/tls-skip-verify" in out
    assert "left: Pod/shop: vault.hashicorp.com/tls-skip-verify: " in err


def test_unusable_input_is_2_and_writes_no_yaml(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("-f", str(tmp_path / "missing.yaml")) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith("missing.yaml: cannot be read: No such file or directory\n")


@pytest.mark.parametrize(("terminal", "plain", "colored"), [(True, "", True), (True, "1", False), (False, "", False)])
def test_color_on_a_terminal_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, terminal: bool, plain: str, colored: bool
) -> None:
    path = tmp_path / "pod.yaml"
    path.write_text(POD.format("agent-init-first"))
    stderr = io.StringIO()
    monkeypatch.setattr(stderr, "isatty", lambda: terminal)
    monkeypatch.setattr("sys.stderr", stderr)
    monkeypatch.setenv("NO_COLOR", plain)
    run("-f", str(path))
    assert ("\x1b[" in stderr.getvalue()) is colored
