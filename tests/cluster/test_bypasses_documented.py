"""docs/bypasses.md and the tests say the same of which attack is tried where."""

from __future__ import annotations

import re
from pathlib import Path

_HERE = Path(__file__).parent
_TABLE = _HERE.parent.parent / "docs" / "bypasses.md"
_ROW = re.compile(r"^\| (\d+) \|.*\| (\w+) \|$", re.MULTILINE)
_TEST = re.compile(r"^def test_((?:c\d\d_)+)", re.MULTILINE)


def test_the_table_is_what_is_tried() -> None:
    closed, _, _ = _TABLE.read_text().partition("## What admission cannot close")
    documented = {(int(number), family) for number, family in _ROW.findall(closed)}
    tried = {
        (int(number), file.stem.removeprefix("test_bypasses_"))
        for file in _HERE.glob("test_bypasses_*.py")
        for numbers in _TEST.findall(file.read_text())
        for number in re.findall(r"\d\d", numbers)
    }
    assert documented == tried
