"""server.files and server.text: what every reader of files and every message stands on."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from server.files import UnusableInputError, read_bounded, read_stream
from server.text import did_you_mean, printable


def test_a_file_of_the_limit_is_read_and_one_byte_more_is_not(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 10)
    assert read_bounded(path, 10) == b"x" * 10
    with pytest.raises(UnusableInputError, match=f"^{path}: larger than 9 bytes$"):
        read_bounded(path, 9)


def test_a_device_that_never_ends_is_read_up_to_the_limit() -> None:
    with pytest.raises(UnusableInputError, match=r"^/dev/zero: larger than 1048576 bytes$"):
        read_bounded(Path("/dev/zero"))


@pytest.mark.parametrize(("name", "why"), [("missing", "No such file or directory"), (".", "Is a directory")])
def test_a_file_that_cannot_be_opened_says_why(tmp_path: Path, name: str, why: str) -> None:
    with pytest.raises(UnusableInputError, match=f"{os.path.basename(tmp_path / name)}: cannot be read: {why}$"):
        read_bounded(tmp_path / name)


def test_a_stream_is_named_by_its_reader() -> None:
    assert read_stream(io.BytesIO(b"abc"), "standard input", 3) == b"abc"
    with pytest.raises(UnusableInputError, match=r"^standard input: larger than 2 bytes$"):
        read_stream(io.BytesIO(b"abc"), "standard input", 2)


def test_what_steers_a_terminal_or_ends_a_line_is_replaced() -> None:
    assert printable("a\x1b[31mb\nc\u202ed é") == "a?[31mb?c?d é"


def test_the_nearest_known_name_is_suggested_and_a_distant_one_is_not() -> None:
    assert did_you_mean("runtimeClases", ["mode", "runtimeClasses"]) == ", did you mean runtimeClasses?"
    assert did_you_mean("vmpll", ["vmpl"], before="; ") == "; did you mean vmpl?"
    assert did_you_mean("zzz", ["mode"]) == ""
