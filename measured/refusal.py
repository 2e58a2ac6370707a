"""What cannot be measured, with the line to change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeGuard


@dataclass(frozen=True, slots=True)
class Refusal:
    """One field that a guest policy cannot pin.

    `field` is its path in the pod; `message` says what to write instead.
    """

    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


class UnmeasurableError(ValueError):
    """The pod has fields that cannot be measured: all of them, not the first."""

    def __init__(self, refusals: list[Refusal]) -> None:
        super().__init__("; ".join(map(str, refusals)))
        self.refusals = tuple(refusals)


class Refusals:
    """Collects refusals while a pod is read."""

    def __init__(self) -> None:
        self.found: list[Refusal] = []

    def add(self, field: str, message: str) -> None:
        """Note one refusal, once."""
        refusal = Refusal(field, message)
        if refusal not in self.found:
            self.found.append(refusal)

    def unless_empty(self, value: object, field: str, message: str) -> None:
        """Refuse a field that is set."""
        if value:
            self.add(field, message)


def is_object(value: object) -> TypeGuard[dict[str, Any]]:
    """A JSON object."""
    return isinstance(value, dict)


def objects(value: object) -> list[dict[str, Any]]:
    """The objects of a list; nothing of anything else."""
    return [item for item in value if is_object(item)] if isinstance(value, list) else []


def member(value: object, name: str) -> dict[str, Any]:
    """The object under this name; empty where there is none."""
    found = value.get(name) if is_object(value) else None
    return found if is_object(found) else {}
