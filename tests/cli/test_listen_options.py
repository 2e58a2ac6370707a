"""The options of both servers' commands."""

from __future__ import annotations

import argparse

import pytest

from cli.support.listen_options import add_listening_options
from server.limits import LAME_DUCK_SECONDS

_REQUIRED = ["--listen", "127.0.0.1:8443", "--tls-cert", "tls.crt", "--tls-key", "tls.key"]


def _parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_listening_options(parser)
    return parser.parse_args([*_REQUIRED, *arguments])


def test_a_lame_duck_has_a_default_and_a_number_of_seconds() -> None:
    assert _parse().lame_duck_seconds == LAME_DUCK_SECONDS
    assert _parse("--lame-duck-seconds", "0").lame_duck_seconds == 0
    assert _parse("--lame-duck-seconds=90.5").lame_duck_seconds == 90.5


@pytest.mark.parametrize("text", ["", "-1", "3601", "nan", "inf", "15s"])
def test_other_lame_ducks_are_refused_with_an_example(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        _parse(f"--lame-duck-seconds={text}")
    assert "expected seconds from 0 to 3600, such as 15" in capsys.readouterr().err
