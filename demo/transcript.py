"""The demo's output: numbered titles, facts, results in colour."""

from __future__ import annotations

import sys

from cli.support.terminal import CYAN, GREEN, RED, YELLOW, coloured, wants_colour
from server.text import printable


class UnexpectedError(Exception):
    """A step had another result than it should; the text says which."""


class Transcript:
    """Prints the demo's lines and keeps them, so that the last step can search them for the secret."""

    def __init__(self) -> None:
        self.colour = wants_colour(sys.stdout)
        self._titles = 0
        self._printed: list[str] = []

    @property
    def text(self) -> str:
        return "\n".join(self._printed)

    def title(self, text: str) -> None:
        self._titles += 1
        self._line("")
        self._line(f"{self._titles}. {text}", CYAN)

    def say(self, text: str) -> None:
        """A fact, indented; each line of it."""
        for line in text.splitlines():
            self._line(f"   {line}")

    def warn(self, text: str) -> None:
        """A fact that the reader must not overlook."""
        self._line(f"   {text}", YELLOW)

    def good(self, word: str, text: str = "") -> None:
        self._result(word, text, GREEN)

    def refused(self, text: str) -> None:
        self._result("refused", text, RED)

    def raw(self, text: str) -> None:
        """Lines that bring their own colour."""
        for line in text.splitlines():
            self._printed.append(line)
            print(line, flush=True)

    def _result(self, word: str, text: str, colour: str) -> None:
        self._printed.append(f"   {word}  {text}")
        print(f"   {coloured(word, colour, wanted=self.colour)}  {printable(text)}".rstrip(), flush=True)

    def _line(self, text: str, colour: str | None = None) -> None:
        self._printed.append(text)
        text = printable(text)
        print(coloured(text, colour, wanted=self.colour) if colour and text else text, flush=True)
