"""One line of a preflight: what was looked at, whether it holds, and the page that says more."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass


class State(enum.StrEnum):
    """What is known of a line. Only `FAILED` and `NOT_EVALUATED` decide."""

    OK = "ok"
    FAILED = "failed"
    NOT_EVALUATED = "not-evaluated"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Line:
    """`check` is a stable word for programs. `text` holds no value of the cluster; `link` is a page of docs/.

    `rule` is the id of the rule of admission that a line is about, where it is about one.
    """

    check: str
    state: State
    text: str
    link: str = ""
    rule: str = ""


def is_go(lines: Iterable[Line], *, allow_unevaluated: bool) -> bool:
    """Whether nothing failed, and nothing is unknown unless that is allowed."""
    states = {line.state for line in lines}
    return State.FAILED not in states and (allow_unevaluated or State.NOT_EVALUATED not in states)
