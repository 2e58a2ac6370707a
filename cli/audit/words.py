"""The words of a report: classes, objects, and how a person gets at the line to change."""

from __future__ import annotations

from typing import Final

from webhook.modes import Mode
from webhook.rules.rule import Severity
from webhook.scanner.finding import FindingClass, ObjectId

CLASSES: Final = {
    FindingClass.FIXED_BY_INJECTION: "fixed by injection",
    FindingClass.YOURS_TO_CHANGE: "yours to change",
    FindingClass.NOT_EVALUATED: "not evaluated",
}
SEVERITIES: Final = (Severity.CRITICAL, Severity.HIGH, Severity.MEDIUM, Severity.LOW)
"""The gravest first."""


def mode_word(mode: Mode) -> str:
    """A namespace's mode as people call it."""
    return mode.value if mode is not Mode.ABSENT else "no mode"


def mode_phrase(mode: Mode) -> str:
    """What a namespace has, in a sentence."""
    return f"mode {mode.value}" if mode is not Mode.ABSENT else "no mode"


def edit_command(item: ObjectId) -> str:
    """The command that opens the object, or says where its template comes from."""
    group = item.api_version.partition("/")[0] if "/" in item.api_version else ""
    resource = f"{item.kind.lower()}.{group}" if group else item.kind.lower()
    return f"kubectl edit {resource} {item.name} -n {item.namespace}"
