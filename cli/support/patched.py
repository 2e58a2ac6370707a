"""Applies the operations of a decision (RFC 6902: add, replace, remove, the only ones that the engine makes)."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any


def patched(item: dict[str, Any], operations: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The object after the operations; the given one is not changed."""
    result = deepcopy(item)
    for operation in operations:
        *parents, last = [_unescaped(step) for step in operation["path"].split("/")[1:]]
        here: Any = result
        for step in parents:
            here = here[int(step)] if isinstance(here, list) else here[step]
        _apply(operation, here, last)
    return result


def _apply(operation: dict[str, Any], parent: Any, last: str) -> None:
    name = operation["op"]
    key = int(last) if isinstance(parent, list) else last
    if name == "remove":
        del parent[key]
    elif name == "add" and isinstance(parent, list):
        parent.insert(int(last), deepcopy(operation["value"]))
    elif name in ("add", "replace"):
        parent[key] = deepcopy(operation["value"])
    else:
        raise ValueError(f"operation {name}")


def _unescaped(step: str) -> str:
    return step.replace("~1", "/").replace("~0", "~")
