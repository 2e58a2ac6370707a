"""What an exception that nobody expected tells: class and place, never its text."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from sidecar.errors import SidecarError, internal_error
from sidecar.reasons import Exit, Reason
from tests.sidecar.pod import CANARY
from tests.support.paths import ROOT

_START = f"""
import sys
from pathlib import Path
from sidecar.main import run
from sidecar.paths import PodPaths

class Environment(dict):
    def get(self, name):
        raise KeyError("{CANARY}")

sys.exit(run(Environment(), PodPaths(termination_log=Path(sys.argv[1]))))
"""


def test_an_unknown_exception_is_told_without_its_text(tmp_path: Path) -> None:
    last_words = tmp_path / "last-words"
    last_words.touch()
    done = subprocess.run([sys.executable, "-c", _START, last_words], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == Exit.INTERNAL
    event = json.loads(done.stderr)
    assert (event["reason"], event["exit_code"]) == ("internal-error", Exit.INTERNAL)
    assert "unexpected KeyError at " in event["detail"]
    for text in (done.stderr, last_words.read_text()):
        assert CANARY not in text
    assert last_words.read_text().count("\n") == 1


def test_without_a_termination_log_none_is_made(tmp_path: Path) -> None:
    missing = tmp_path / "none"
    done = subprocess.run([sys.executable, "-c", _START, missing], capture_output=True, cwd=ROOT)
    assert done.returncode == Exit.INTERNAL
    assert not missing.exists()


def test_the_place_is_where_it_was_raised() -> None:
    try:
        raise ValueError(CANARY)
    except ValueError as error:
        told = internal_error(error)
    assert isinstance(told, SidecarError)
    assert "ValueError at test_error_messages.py:" in told.line
    assert CANARY not in told.line


def test_one_line_has_reason_and_correlation_id() -> None:
    told = SidecarError(Reason.VERIFIER_REFUSED, "it said no", correlation_id="0123456789abcdef")
    assert told.line == "morphisms-init: it said no [verifier-refused, correlation id 0123456789abcdef]"
