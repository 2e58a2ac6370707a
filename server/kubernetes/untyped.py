"""Objects as the API returns them, read without trust in their shape: their authors write most of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

# Names become path segments, and `..` would be another path (RFC 1123 subdomain).
_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")


TIME_FORM: Final = "%Y-%m-%dT%H:%M:%SZ"
"""How the API writes a time (metav1.Time), which is UTC."""


def mapping(value: object) -> Mapping[str, Any]:
    """The object; an empty one in place of anything else."""
    return value if isinstance(value, Mapping) else {}


def mappings(value: object) -> Iterator[Mapping[str, Any]]:
    """The objects of a list; none of anything else."""
    return (each for each in (value if isinstance(value, list) else ()) if isinstance(each, Mapping))


def text(value: object) -> str:
    """The text; an empty one in place of anything else."""
    return value if isinstance(value, str) else ""


def condition_of(status: Mapping[str, Any], kind: str, value: str = "") -> Mapping[str, Any]:
    """The condition of that type in an object's status, else an empty one.

    With `value`, such as "True", only a condition that has this status counts.
    """
    found = (each for each in mappings(status.get("conditions")) if each.get("type") == kind)
    return next((each for each in found if not value or each.get("status") == value), {})


def is_name(value: str) -> bool:
    """Whether it can be the name of an object in a path."""
    return _NAME.fullmatch(value) is not None


def controller_of(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    """The ownerReference of the controller; empty without one. The API server allows one at most."""
    return next((each for each in mappings(metadata.get("ownerReferences")) if each.get("controller") is True), {})
