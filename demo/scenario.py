"""What the reader sees: numbered titles, facts, verdicts in colour; and what the demo was not allowed to show."""

from __future__ import annotations

import sys

from cli.support.terminal import CYAN, GREEN, RED, YELLOW, coloured, wants_colour
from server.text import printable


class UnexpectedError(Exception):
    """A step ended otherwise than it should; the text says how."""


class Story:
    """Prints, and remembers what it printed, so that the end can look for the secret in it."""

    def __init__(self) -> None:
        self.colour = wants_colour(sys.stdout)
        self._titles = 0
        self._told: list[str] = []

    @property
    def text(self) -> str:
        return "\n".join(self._told)

    def title(self, text: str) -> None:
        self._titles += 1
        self._line("")
        self._line(f"{self._titles}. {text}", CYAN)

    def say(self, text: str) -> None:
        """A fact, indented; each line of it."""
        for line in text.splitlines():
            self._line(f"   {line}")

    def warn(self, text: str) -> None:
        """What the reader must not overlook."""
        self._line(f"   {text}", YELLOW)

    def good(self, word: str, text: str = "") -> None:
        self._verdict(word, text, GREEN)

    def refused(self, text: str) -> None:
        self._verdict("refused", text, RED)

    def raw(self, text: str) -> None:
        """Lines that bring their own colour."""
        for line in text.splitlines():
            self._told.append(line)
            print(line, flush=True)

    def _verdict(self, word: str, text: str, colour: str) -> None:
        self._told.append(f"   {word}  {text}")
        print(f"   {coloured(word, colour, wanted=self.colour)}  {printable(text)}".rstrip(), flush=True)

    def _line(self, text: str, colour: str | None = None) -> None:
        self._told.append(text)
        text = printable(text)
        print(coloured(text, colour, wanted=self.colour) if colour and text else text, flush=True)
