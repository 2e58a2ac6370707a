"""Translates a field of the rewritten pod into the field of the object that its author wrote."""

from __future__ import annotations

import re
from typing import Any

_STEP = re.compile(r"\.?([^.\[\]]+)|\[([^\]]*)\]")


def authored_field(field: str, rewritten: dict[str, Any], authored: dict[str, Any]) -> str:
    """The same field with the indices of the author's lists: injection puts a container first and removes variables.

    A field that injection added keeps its own indices.
    """
    after: Any = rewritten
    before: Any = authored
    result = ""
    for match in _STEP.finditer(field):
        member, place = match.groups()
        if member is None and isinstance(after, list) and place.isdigit() and int(place) < len(after):
            after = after[int(place)]
            index = _place(after, before)
            if index is None:
                return field
            before = before[index]
            result += f"[{index}]"
            continue
        step = place if member is None else member
        after = after.get(step) if isinstance(after, dict) else None
        before = before.get(step) if isinstance(before, dict) else None
        result += match[0]
    return result


def _place(element: Any, authored: Any) -> int | None:
    """The element's index in the author's list: of the same object, else of the one with the same name."""
    if not isinstance(authored, list):
        return None
    for index, candidate in enumerate(authored):
        if candidate is element:
            return index
    name = element.get("name") if isinstance(element, dict) else None
    for index, candidate in enumerate(authored):
        if name is not None and isinstance(candidate, dict) and candidate.get("name") == name:
            return index
    return None
