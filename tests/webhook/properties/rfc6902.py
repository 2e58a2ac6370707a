"""JSON Patch (RFC 6902) after its text: a third implementation beside `jsonpatch` and the engine's own result."""

from __future__ import annotations

import copy
from typing import Any


def apply(document: Any, operations: Any) -> Any:
    """The document after the operations; the given one is not changed. Raises for the errors that the RFC defines."""
    root = {"": copy.deepcopy(document)}
    for operation in operations:
        *parents, last = _steps(operation["path"])
        here: Any = root
        for step in ("", *parents):
            here = here[_index(here, step)] if isinstance(here, list) else here[step]
        kind = operation["op"]
        if isinstance(here, list):
            at = len(here) if last == "-" else _index(here, last, extra=kind == "add")
            if kind == "add":
                here.insert(at, copy.deepcopy(operation["value"]))
                continue
            last = at
        elif kind != "add" and last not in here:
            raise KeyError(f"no member to {kind}")
        if kind == "remove":
            del here[last]
        elif kind in ("add", "replace"):
            here[last] = copy.deepcopy(operation["value"])
        else:
            raise ValueError(f"operation {kind}")
    return root[""]


def _steps(pointer: str) -> list[str]:
    if not pointer.startswith("/"):
        raise ValueError("not a pointer into a document")
    return [step.replace("~1", "/").replace("~0", "~") for step in pointer[1:].split("/")]


def _index(items: list[Any], step: str, *, extra: bool = False) -> int:
    if not step.isdecimal() or (step != "0" and step.startswith("0")) or int(step) >= len(items) + extra:
        raise IndexError("no such place in the list")
    return int(step)
