"""Kubernetes' expansion of `$(NAME)` in a variable's value, for values that hold inline references as well.

The grammar is that of k8s.io/kubernetes/third_party/forked/golang/expansion: `$$` is `$`, `$(NAME)` is the value of a
variable defined before, an unknown NAME and every other `$` stay as they are. The webhook finds the names by it, the
sidecar keeps those that the plan lists for the exec helper and makes all other text literal.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

# An even number of dollars: either the last one begins a reference, or the one before escapes it.
_ESCAPED_REFERENCE: Final = re.compile(r"(?<!\$)(?:\$\$)+\{vault:")


def split_expansions(text: str) -> Iterator[tuple[str, str | None]]:
    """The text in order: (literal text, as Kubernetes passes it on; None), and (the text as written; its NAME)."""
    at = 0
    while at < len(text):
        here = text.find("$", at)
        if here < 0 or here + 1 == len(text):
            yield text[at:], None
            return
        if here > at:
            yield text[at:here], None
        end = text.find(")", here) if text[here + 1] == "(" else -1
        if end >= 0:
            yield text[here : end + 1], text[here + 2 : end]
            at = end + 1
        else:
            yield ("$" if text[here + 1] == "$" else text[here : here + 2]), None
            at = here + 2


def expanded_names(text: str) -> list[str]:
    """Each NAME of `$(NAME)` once, in the order of first use."""
    if "$(" not in text:
        return []
    return list(dict.fromkeys(name for _, name in split_expansions(text) if name is not None))


def escapes_reference(text: str) -> bool:
    """Whether `$$` stands directly before the brace of an inline reference, which has two readings."""
    return _ESCAPED_REFERENCE.search(text) is not None


def escaped(text: str) -> str:
    """The text for the exec helper, which expands it to itself."""
    return text.replace("$", "$$")
