"""`kms("attest", …)` runs a command as `morphisms` does, and returns exit code and output."""

from __future__ import annotations

import pytest

from cli.main import main
from tests.cli.recorded import Command, Result


@pytest.fixture
def kms(capsys: pytest.CaptureFixture[str]) -> Command:
    def call(name: str, *arguments: str) -> Result:
        code = main(["kms", name, *arguments])
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return call
