"""Untrusted text in messages, and suggestions."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def printable(text: str) -> str:
    """The text without characters that steer a terminal or end a line: `?` stands for each."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else "?" for character in text)


def did_you_mean(name: str, known: Iterable[str], *, before: str = ", ") -> str:
    """`, did you mean NAME?` with the known name that is nearest; empty where none is near."""
    near = difflib.get_close_matches(name, tuple(known), 1)
    return f"{before}did you mean {near[0]}?" if near else ""
