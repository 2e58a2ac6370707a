"""Colours and messages on a terminal."""

from __future__ import annotations

import os
import sys
from typing import Final, TextIO

from server.text import printable

RED: Final = "31"
GREEN: Final = "32"
YELLOW: Final = "33"
CYAN: Final = "36"


def wants_colour(stream: TextIO) -> bool:
    """Whether the stream is a terminal and its user did not opt out of colours (no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def coloured(text: str, code: str, *, wanted: bool) -> str:
    """The text in an ANSI colour, or as it is."""
    return f"\x1b[{code}m{text}\x1b[0m" if wanted else text


def say(line: str) -> None:
    """A message for people, on stderr, always one line."""
    print(printable(line), file=sys.stderr)
