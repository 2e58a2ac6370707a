"""Every text in a part of a pod, whatever field it stands in: so a field of the next Kubernetes is looked at too."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from server.text import printable
from webhook.pod.container import Container

_LONGEST_FIELD: Final = 256


def texts(node: Any, leave_out: frozenset[str] = frozenset()) -> Iterator[tuple[str, str, str]]:
    """(path of the parent, member, text) of every text below a dict or list; texts of a list have an empty member.

    Members named in `leave_out` are not entered, at any depth. Paths are relative, such as `.lifecycle.preStop.exec`.
    """
    todo: list[tuple[str, Any]] = [("", node)]
    while todo:
        path, here = todo.pop()
        if isinstance(here, dict):
            for key, value in here.items():
                if isinstance(value, str):
                    if key not in leave_out:
                        yield path, key, value
                elif isinstance(value, dict | list) and key not in leave_out:
                    todo.append((f"{path}.{key}", value))
        else:
            for index, value in enumerate(here):
                if isinstance(value, str):
                    yield path, "", value
                elif isinstance(value, dict | list):
                    todo.append((f"{path}[{index}]", value))


def field_of(container: Container, parent: str, member: str) -> str:
    """The field of a text that `texts` found in the container, made safe for a message."""
    return printable(f"{container.field}{parent}.{member}".rstrip(".")[:_LONGEST_FIELD])
