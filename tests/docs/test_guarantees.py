"""README's guarantees and docs/guarantees.md say the same, and each test that the page names exists."""

from __future__ import annotations

import ast
import re

import pytest

from tests.support.paths import ROOT

_PAGE = (ROOT / "docs" / "guarantees.md").read_text()
_SECTION = (ROOT / "README.md").read_text().partition("## What is guaranteed, honestly\n")[2].partition("\n## ")[0]
# What is left of the section once its claims are taken away: the table's frame, and where to read on.
_FRAME = """
    : | assurance | who the secret goes to | holds against | |---|---|---| | `vm` | ; | ; ; . | | `workload` | | , |
    : [docs/kms.md](docs/kms.md).
    Each of these claims, with its tests or its limit: [docs/guarantees.md](docs/guarantees.md).
    What admission cannot close, and what does: [docs/reference.md](docs/reference.md#what-admission-cannot-close).
    Every known way around it, with its test: [docs/bypasses.md](docs/bypasses.md).
"""


def _words(text: str) -> str:
    return " ".join(text.split())


def _rows() -> list[list[str]]:
    lines = [line for line in _PAGE.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in re.split(r"(?<!`)\|(?!`)", line)[1:-1]] for line in lines[1:]]


_ROWS = _rows()


@pytest.mark.parametrize("row", _ROWS, ids=lambda row: row[0][:40])
def test_a_claim_is_the_readmes_and_has_a_test_or_a_limit(row: list[str]) -> None:
    claim, tests, limit = row
    assert _words(claim) in _words(_SECTION)
    assert tests or limit


def test_no_claim_of_the_readme_is_missing() -> None:
    left = _words(_SECTION)
    for claim, *_ in sorted(_ROWS, key=lambda row: -len(row[0])):
        left = left.replace(_words(claim), "", 1)
    assert sorted(left.split()) == sorted(_FRAME.split())


@pytest.mark.parametrize("node", sorted({node for _, tests, _ in _ROWS for node in re.findall(r"`([^`]+)`", tests)}))
def test_a_named_test_exists(node: str) -> None:
    file, _, name = node.partition("::")
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    names = {each.name for each in ast.parse((ROOT / file).read_text()).body if isinstance(each, functions)}
    assert name in names
