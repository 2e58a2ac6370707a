"""A JSON Patch (RFC 6902) and the object it yields, made together by explicit operations.

It never diffs two objects: diffing was measured wrong on 2 % of adversarial pods. The operations are add, replace and
remove. Each is applied to a copy, which shares with the original what no operation touches, so that the result cannot
differ from what the patch says.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

Step = str | int


class Patch:
    """Operations on `original`, which is never changed; `result` is the object after them."""

    def __init__(self, original: dict[str, Any]) -> None:
        self.operations: list[dict[str, Any]] = []
        # The parts that operations touch: the first two steps of each path, in order.
        self.parts: dict[tuple[Step, ...], None] = {}
        self.result: dict[str, Any] = dict(original)
        # Dicts and lists in the result that this patch has copied, by identity; held so that no identity is reused.
        self._owned: dict[int, Any] = {id(self.result): self.result}

    def add(self, path: tuple[Step, ...], value: Any) -> None:
        """Add a member, or insert before a list index (the length appends)."""
        parent, last = self._parent(path), path[-1]
        if isinstance(parent, list):
            parent.insert(int(last), value)
        else:
            parent[last] = value
        self._record("add", path, value)

    def replace(self, path: tuple[Step, ...], value: Any) -> None:
        """Replace what is there."""
        self._parent(path)[path[-1]] = value
        self._record("replace", path, value)

    def remove(self, path: tuple[Step, ...]) -> None:
        """Remove what is there."""
        del self._parent(path)[path[-1]]
        self.parts[path[:2]] = None
        self.operations.append({"op": "remove", "path": pointer(path)})

    def extend(self, path: tuple[Step, ...], present: Sequence[Any] | None, missing: Sequence[Any]) -> None:
        """Append `missing` to the list at `path`, whose elements are `present`; add the list where it has none."""
        if not missing:
            return
        if not present:
            self.add(path, list(missing))
            return
        self._parent((*path, len(present))).extend(missing)
        self.parts[path[:2]] = None
        base = pointer(path)
        for index, element in enumerate(missing, len(present)):
            self.operations.append({"op": "add", "path": f"{base}/{index}", "value": element})

    def annotate(self, base: tuple[Step, ...], key: str, value: str) -> None:
        """Set an annotation of the object at `base` (the empty path: the whole object)."""
        holder: Any = self.result
        for step in base:
            holder = holder[step]
        path = (*base, "metadata")
        metadata = holder.get("metadata")
        if metadata is None:
            self.add(path, {"annotations": {key: value}})
        elif not metadata.get("annotations"):
            self.add((*path, "annotations"), {key: value})
        else:
            self.add((*path, "annotations", key), value)

    def _record(self, operation: str, path: tuple[Step, ...], value: Any) -> None:
        self.parts[path[:2]] = None
        self.operations.append({"op": operation, "path": pointer(path), "value": value})

    def _parent(self, path: tuple[Step, ...]) -> Any:
        """The dict or list that holds the last step; each one on the way down is copied before its first change."""
        here: Any = self.result
        owned = self._owned
        for step in path[:-1]:
            child = here[step]
            if id(child) not in owned:
                child = here[step] = child.copy()
                owned[id(child)] = child
            here = child
        return here


# The same few paths are written into every pod.
@lru_cache(maxsize=1024)
def pointer(path: tuple[Step, ...]) -> str:
    """RFC 6901."""
    text = "/" + "/".join(map(str, path))
    if "~" not in text and text.count("/") == len(path):
        return text
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in path)
