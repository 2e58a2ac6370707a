"""The process of an image as Kubernetes' fields: `command` and `args` that start the same as leaving them out."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from measured.image import Image

_EXPANDED: Final = re.compile(r"\$(?=[$(])")


@dataclass(frozen=True, slots=True)
class Process:
    """The lists for a container; `args` can be empty."""

    command: list[str]
    args: list[str]

    def lines(self) -> list[str]:
        """As YAML to paste."""
        named = {"command": self.command, "args": self.args}
        return [f"{name}: [{', '.join(map(_quoted, words))}]" for name, words in named.items() if words]


def process_of(image: Image, args: Sequence[str] = ()) -> Process | None:
    """The fields for a container with these `args` and no command; None where nothing says what to start."""
    given = list(args) or [_unexpanded(word) for word in image.cmd]
    entrypoint = [_unexpanded(word) for word in image.entrypoint]
    if entrypoint:
        return Process(entrypoint, given)
    return Process(given, []) if given else None


def write_process(container: dict[str, Any], image: Image) -> bool:
    """Write the fields into a container without a command; whether there is something to start."""
    process = process_of(image, container.get("args") or ())
    if process is None:
        return False
    container["command"] = process.command
    container.pop("args", None)
    if process.args:
        container["args"] = process.args
    return True


def _unexpanded(word: str) -> str:
    """Kubernetes expands `$(NAME)` in its fields, and nothing in an image's own words."""
    return _EXPANDED.sub("$$", word)


def _quoted(word: str) -> str:
    text = json.dumps(word, ensure_ascii=False)
    return "".join(each if each.isprintable() else f"\\U{ord(each):08x}" for each in text)
