"""The translation of one foreign annotation, or of several that belong together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from webhook.configuration.model import Configuration


@dataclass(frozen=True, slots=True)
class Note:
    """A message about `key`, a foreign annotation without its prefix. Never holds a value."""

    key: str
    text: str


@dataclass(frozen=True, slots=True)
class Step:
    """Foreign annotations (keys without their prefix) and their translation.

    With `left` they stay, and it says why; `harmless` when the other injector does nothing with them. Otherwise they
    go, `own` takes their place (keys without our prefix), and `notes` say what is not quite the same. Neither `own` nor
    `notes` means: nothing was lost.
    """

    keys: tuple[str, ...]
    own: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[Note, ...] = ()
    left: Note | None = None
    harmless: bool = False


@dataclass(frozen=True, slots=True)
class Context:
    """The input of a translation: the foreign annotations without prefix, ours without prefix, the pod's spec."""

    foreign: Mapping[str, str]
    native: Mapping[str, str]
    spec: Mapping[str, Any]
    configuration: Configuration

    def every_container(self) -> str | None:
        """The value of `containers` that names all of them; None unless there are several and each has a name."""
        containers = self.spec.get("containers")
        if not isinstance(containers, list) or len(containers) < 2:
            return None
        names = [each.get("name") if isinstance(each, dict) else None for each in containers]
        return ",".join(map(str, names)) if all(isinstance(name, str) for name in names) else None


def mappings(value: Any) -> list[dict[str, Any]]:
    """The mappings in a list, without the items that the API server would refuse."""
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def left(key: str, text: str, keys: Iterable[str] = ()) -> Step:
    """`key` stays, and so do the `keys` that belong to it."""
    return Step((key, *(each for each in keys if each != key)), left=Note(key, text))


def dropped(key: str, text: str = "") -> Step:
    """`key` is removed without a replacement. No text means that the pod loses nothing."""
    return Step((key,), notes=(Note(key, text),) if text else ())
