"""A property sees the same examples in every run, whatever ran before it in the same process."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st


def _examples() -> list[tuple[int, str]]:
    found: list[tuple[int, str]] = []

    @settings(max_examples=200)
    @given(st.integers(), st.text())
    def note(number: int, text: str) -> None:
        found.append((number, text))

    note()
    return found


@pytest.mark.skipif(not settings.default.derandomize, reason="a search for new examples")
def test_examples_do_not_depend_on_what_the_process_has_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = _examples()
    (tmp_path / "imported_meanwhile.py").write_text(f"CONSTANTS = {list(range(10**6, 10**6 + 400))}\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("imported_meanwhile")
    assert _examples() == before
