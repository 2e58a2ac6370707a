"""The names by which people know a pod: its own, or its prefix, and the controller that made it.

A controller's pod has no name yet when admission sees it, and each retry makes another. Log lines and audit annotations
so carry the owner. Every author can write these fields, and nothing has validated them: what is no Kubernetes name is
left out, so that no other text gets into a log.
"""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple

from webhook.request import Request

_POD: Final = ("", "v1", "Pod")
# DNS subdomains, and the characters that RBAC's and other path-segment names have besides.
_NAME: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
_PREFIX: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,252}")
_LONGEST_KIND: Final = 63


class WorkloadName(NamedTuple):
    """A pod's `name` or `generate_name`, and its `owner`: the controller as KIND/NAME. Each may be empty."""

    name: str = ""
    generate_name: str = ""
    owner: str = ""

    def __str__(self) -> str:
        """The owner, else the pod: `ReplicaSet/web-5d9f`, `Pod/web-0` or `Pod/web-*`; empty where nothing is known."""
        if self.owner:
            return self.owner
        if self.name:
            return f"Pod/{self.name}"
        return f"Pod/{self.generate_name}*" if self.generate_name else ""


def workload_text(request: Request) -> str:
    """The text of `workload_name`. Most pods have an owner, and then only its name is looked at."""
    item = request.object if request.kind == _POD else None
    metadata = item.get("metadata") if item is not None else None
    owner = _owner(metadata.get("ownerReferences")) if isinstance(metadata, dict) else ""
    return owner or str(workload_name(request))


def workload_name(request: Request) -> WorkloadName:
    """The names in a request about a pod; none for other kinds, whose names the request has."""
    if request.kind != _POD:
        return WorkloadName()
    item = request.object if request.object is not None else request.old_object
    metadata = item.get("metadata") if item is not None else None
    if not isinstance(metadata, dict):
        return WorkloadName(_matching(_NAME, request.name))
    name = _matching(_NAME, metadata.get("name")) or _matching(_NAME, request.name)
    prefix = "" if name else _matching(_PREFIX, metadata.get("generateName"))
    return WorkloadName(name, prefix, _owner(metadata.get("ownerReferences")))


def _owner(references: Any) -> str:
    for reference in references if isinstance(references, list) else ():
        if isinstance(reference, dict) and reference.get("controller") is True:
            kind, name = reference.get("kind"), _matching(_NAME, reference.get("name"))
            return f"{kind}/{name}" if name and _is_kind(kind) else ""
    return ""


def _is_kind(value: Any) -> bool:
    """Whether it is a letter, with letters and digits after it."""
    return (
        isinstance(value, str)
        and 0 < len(value) <= _LONGEST_KIND
        and value.isascii()
        and value.isalnum()
        and value[0].isalpha()
    )


def _matching(pattern: re.Pattern[str], value: Any) -> str:
    return value if isinstance(value, str) and pattern.fullmatch(value) else ""
