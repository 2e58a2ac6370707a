"""The words that can follow on a command line, read from the parser. Pure: nothing is run."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

_FILE_WORDS: Final = ("FILE", "DIR", "FOLDER")


@dataclass(frozen=True, slots=True)
class Candidates:
    """Each word that fits, with its description; `files`: the name of a file fits too."""

    words: tuple[tuple[str, str], ...] = ()
    files: bool = False


def candidates(parser: argparse.ArgumentParser, words: Sequence[str]) -> Candidates:
    """What the last of the words, perhaps empty, can become; the others precede it on the command line."""
    *before, current = words
    line = _Line(parser)
    for word in before:
        line.take(word)
    found = line.completions(current)
    fitting = tuple(each for each in found.words if each[0].startswith(current))
    return Candidates(fitting, found.files)


class _Line:
    """The state of the parser behind some words."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self._enter(parser)
        self._option: argparse.Action | None = None
        self._only_positionals = False
        self._given: set[int] = set()

    def _enter(self, parser: argparse.ArgumentParser) -> None:
        self._parser = parser
        self._positionals = [each for each in parser._actions if not each.option_strings]
        self._at = 0

    def take(self, word: str) -> None:
        """Step over one complete word."""
        if self._option is not None and not self._is_option(word):
            if self._option.nargs not in ("+", "*"):
                self._option = None
            return
        self._option = None
        if word == "--" and not self._only_positionals:
            self._only_positionals = True
        elif self._is_option(word):
            name, equals, _ = word.partition("=")
            action = self._parser._option_string_actions.get(name)
            if action is not None:
                self._given.add(id(action))
                self._option = action if not equals and _takes_value(action) else None
        else:
            self._positional(word)

    def _positional(self, word: str) -> None:
        action = self._current_positional
        if action is None:
            return
        if isinstance(action, argparse._SubParsersAction):
            if word in action.choices:
                self._enter(action.choices[word])
        elif action.nargs not in ("+", "*"):
            self._at += 1

    @property
    def _current_positional(self) -> argparse.Action | None:
        return self._positionals[self._at] if self._at < len(self._positionals) else None

    def _is_option(self, word: str) -> bool:
        return not self._only_positionals and len(word) > 1 and word.startswith("-")

    def completions(self, current: str) -> Candidates:
        """What fits next, whatever it begins with."""
        if self._option is not None and not self._is_option(current):
            return _values(self._option)
        name, equals, _ = current.partition("=")
        if self._is_option(current) and equals:
            action = self._parser._option_string_actions.get(name)
            found = Candidates() if action is None or not _takes_value(action) else _values(action)
            return Candidates(tuple((f"{name}={word}", text) for word, text in found.words), found.files)
        positional = self._current_positional
        if current.startswith("-") and not self._only_positionals:
            return Candidates(tuple(self._options()))
        if positional is not None:
            return _values(positional)
        return Candidates(() if self._only_positionals else tuple(self._options()))

    def _options(self) -> Iterator[tuple[str, str]]:
        """Every option once, by its long name, but for one that was given and can be given once only."""
        for action in self._parser._actions:
            long = [each for each in action.option_strings if each.startswith("--")] or action.option_strings
            again = id(action) not in self._given or isinstance(action, argparse._AppendAction | argparse._ExtendAction)
            if long and again and action.help != argparse.SUPPRESS:
                yield long[0], _described(action.help)


def _takes_value(action: argparse.Action) -> bool:
    return action.nargs != 0


def _values(action: argparse.Action) -> Candidates:
    if isinstance(action, argparse._SubParsersAction):
        described = {each.dest: _described(each.help) for each in action._choices_actions}
        return Candidates(tuple((name, described.get(name, "")) for name in action.choices))
    if action.choices is not None:
        return Candidates(tuple((str(each), "") for each in action.choices))
    metavar: Any = action.metavar
    named = any(word in str(metavar) for word in _FILE_WORDS)
    return Candidates(files=named or action.type is Path)


def _described(text: str | None) -> str:
    """The help as one line, as far as the first clause; argparse's own placeholders say nothing here."""
    return " ".join((text or "").replace("%(default)s", "…").replace("%%", "%").split()).partition(";")[0]
