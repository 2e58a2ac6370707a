"""`command("inject", …)` runs a subcommand and returns exit code and output."""

from __future__ import annotations

import pytest

from tests.cli.recorded import Command, Result, run_module


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    def call(name: str, *arguments: str) -> Result:
        code = run_module(name, list(arguments))
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return call
