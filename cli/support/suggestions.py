"""An argument parser that suggests the nearest command or option for a mistyped one."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

from server.text import did_you_mean, printable

_MAX_WORD = 63


class SuggestingParser(argparse.ArgumentParser):
    """As argparse, but an unknown word is answered with the one that was meant, where one is near. Exits with 2."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse, and suggest for options that nothing knows."""
        arguments, unknown = self.parse_known_args(args, namespace)
        if unknown:
            self._refuse(unknown, getattr(arguments, "command", None))
        return arguments

    def _refuse(self, unknown: list[str], command: str | None) -> NoReturn:
        parser = self._subparsers_by_name().get(command or "", self)
        known = [option for option in parser._option_string_actions if option.startswith("--")]
        named = [_unknown(word, known) for word in unknown]
        parser.error(f"unrecognized arguments: {', '.join(named)}")

    def _subparsers_by_name(self) -> dict[str, argparse.ArgumentParser]:
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                return dict(action.choices)
        return {}

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """A word that is none of the choices; argparse lists them all, which hides the one that was meant."""
        choices = None if action.choices is None else [str(choice) for choice in action.choices]
        if choices is not None and value not in action.choices:  # type: ignore[operator]
            hint = did_you_mean(str(value), choices)
            if hint:
                raise argparse.ArgumentError(action, f"invalid choice: {printable(str(value)[:_MAX_WORD])}{hint}")
        super()._check_value(action, value)


def _unknown(word: str, known: list[str]) -> str:
    option = word.partition("=")[0]
    hint = did_you_mean(option, known) if option.startswith("-") else ""
    # A value may follow the `=`, and be a secret.
    return f"{printable(option[:_MAX_WORD])}{hint}"
