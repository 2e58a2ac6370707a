"""The lines of a preflight as text and JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Final

from cli.preflight.lines import Line, State
from cli.support.terminal import CYAN, GREEN, RED, YELLOW, coloured
from server.text import printable

_COLOURS: Final = {State.OK: GREEN, State.FAILED: RED, State.NOT_EVALUATED: YELLOW, State.NOTE: CYAN}


def text(lines: Sequence[Line], *, colour: bool) -> Iterator[str]:
    """A line each; the page follows where something is to be done."""
    for line in lines:
        state = coloured(f"{line.state.value:13}", _COLOURS[line.state], wanted=colour)
        needs_page = line.state in (State.FAILED, State.NOT_EVALUATED)
        yield f"{state} {line.check:13} {printable(line.text)}" + (f" [{line.link}]" if needs_page else "")


def counts(lines: Sequence[Line]) -> str:
    """How many of them decide."""
    count = Counter(each.state for each in lines)
    return f"{count[State.FAILED]} failed, {count[State.NOT_EVALUATED]} not evaluated"


def objects(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """As members of a JSON document."""
    return [{"check": each.check, "state": each.state.value, "text": each.text, "link": each.link} for each in lines]
