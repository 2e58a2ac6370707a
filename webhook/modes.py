"""The modes of a namespace, and the actions of a rule."""

from __future__ import annotations

import enum
from typing import Literal


class Mode(enum.StrEnum):
    """The value of a namespace's `morphisms.dev/mode` label; ABSENT when there is none."""

    ABSENT = "absent"
    AUDIT = "audit"
    INJECT = "inject"
    ENFORCE = "enforce"

    @property
    def strictness(self) -> int:
        """0 (absent) to 3 (enforce)."""
        return _ORDER.index(self)

    @property
    def path_segment(self) -> str:
        """The last segment of the paths that the API server calls for namespaces of this mode."""
        return "none" if self is Mode.ABSENT else self.value


_ORDER = (Mode.ABSENT, Mode.AUDIT, Mode.INJECT, Mode.ENFORCE)


def stricter(one: Mode, other: Mode) -> Mode:
    """The stricter of two modes."""
    return max(one, other, key=lambda mode: mode.strictness)


# Not "off": YAML reads that as false.
Action = Literal["deny", "record", "ignore"]


def mode_of_label(value: str | None) -> Mode:
    """The mode for a label value; None is a namespace without the label.

    A value that is not a mode means ENFORCE, as in the registration's selectors: its author wanted a mode, and a typing
    mistake must not open the namespace. `/validate/namespace` answers it with a warning.
    """
    return Mode.ABSENT if value is None else _BY_LABEL.get(value, Mode.ENFORCE)


def is_known_label(value: str) -> bool:
    """Whether the value names a mode."""
    return value in _BY_LABEL


_BY_LABEL = {mode.value: mode for mode in (Mode.AUDIT, Mode.INJECT, Mode.ENFORCE)}
