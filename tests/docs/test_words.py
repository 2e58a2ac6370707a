"""One word, one meaning: the pages do not use the words that the glossary replaced."""

from __future__ import annotations

import re

import pytest

from tests.support.pages import PAGES

_HEADING = "## Words that these pages do not use"
_GLOSSARY = PAGES["docs/glossary.md"]
# The page that states the rule quotes what it forbids.
_PAGES = sorted(PAGES.keys() - {"CONTRIBUTING.md"})


def _replaced() -> list[str]:
    _, _, section = _GLOSSARY.partition(_HEADING)
    cells = re.findall(r"^\| (?!not |---)([^|]+) \|", section, re.MULTILINE)
    return [word.strip() for cell in cells for word in cell.split(",")]


def test_the_glossary_lists_replaced_words() -> None:
    assert len(_replaced()) > 5


@pytest.mark.parametrize("page", _PAGES)
def test_no_page_uses_a_replaced_word(page: str) -> None:
    text, _, _ = PAGES[page].partition(_HEADING)
    # Code and what programs print keep their names.
    text = re.sub(r"```.*?```|`[^`]*`", "", text, flags=re.DOTALL)
    text = " ".join(text.split())
    assert [word for word in _replaced() if re.search(rf"\b{re.escape(word)}(s|es|d|ed)?\b", text, re.IGNORECASE)] == []


def test_lines_are_wrapped() -> None:
    long = []
    for page in _PAGES:
        fenced = False
        for number, line in enumerate(PAGES[page].splitlines(), 1):
            fenced ^= line.startswith("```")
            if len(line) > 120 and not fenced and not line.startswith("|"):
                long.append(f"{page}:{number}")
    assert long == []
