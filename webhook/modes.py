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


_ORDER = (Mode.ABSENT, Mode.AUDIT, Mode.INJECT, Mode.ENFORCE)

# Not "off": YAML reads that as false.
Action = Literal["deny", "record", "ignore"]


def mode_of_label(value: str | None) -> Mode:
    """The mode for a label value. An unknown value means ABSENT, as in the registration's selectors.

    `/validate/namespace` answers an unknown value with a warning.
    """
    return _BY_LABEL.get(value or "", Mode.ABSENT)


def is_known_label(value: str) -> bool:
    """Whether the value names a mode."""
    return value in _BY_LABEL


_BY_LABEL = {mode.value: mode for mode in (Mode.AUDIT, Mode.INJECT, Mode.ENFORCE)}
