"""The demo's last step finds the plaintext in every form that it searches for."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from pathlib import Path

import pytest

from demo import leaks
from demo.transcript import UnexpectedError

_VALUE = "canary-7Qw_x9dL2-mT4vB8sK1z"


@pytest.mark.parametrize("before", range(4))
@pytest.mark.parametrize("after", range(4))
def test_it_finds_the_value_at_any_offset_inside_base64(before: int, after: int) -> None:
    hidden = base64.b64encode(b"payments"[:before] + _VALUE.encode() + b"}\n}\n"[:after])
    with pytest.raises(UnexpectedError, match="the Service holds the secret"):
        leaks.look_for(_VALUE, {"the Service": b"payments " + hidden})


@pytest.mark.parametrize("hidden", [_VALUE.encode(), _VALUE.encode().hex().encode()])
def test_it_finds_the_value_in_plain_text_and_in_hexadecimal(tmp_path: Path, hidden: bytes) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "log").write_bytes(b"a line\n" + hidden)
    with pytest.raises(UnexpectedError, match="deep/log holds the secret"):
        leaks.look_in_files(_VALUE, tmp_path)
    assert leaks.look_in_files("another-canary-7Qw_x9dL2", tmp_path) == 1


def test_a_document_without_the_control_word_raises() -> None:
    with pytest.raises(UnexpectedError, match="nothing was looked at"):
        leaks.look_for(_VALUE, {"the pod": b""})


@pytest.mark.parametrize(
    ("argument", "environment"), [(_VALUE, {}), ("", {"PASSWORD": _VALUE})], ids=["argument", "environment"]
)
def test_it_finds_the_value_in_another_process(argument: str, environment: dict[str, str]) -> None:
    words = [sys.executable, "-c", "print(flush=True); input()", argument]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, env={**os.environ, **environment}) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(UnexpectedError, match=f"process {process.pid} holds the secret"):
            leaks.look_in_processes(_VALUE)
        process.communicate(b"\n")
