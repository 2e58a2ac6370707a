"""Knative's names for the objects below a Service."""

from __future__ import annotations

import hashlib
from typing import Final

_LONGEST: Final = 63
_DIGEST: Final = 32


def child_name(parent: str, suffix: str) -> str:
    """The name of an object that belongs to `parent`; a long one is cut and gets a digest. `suffix` is short."""
    if len(parent) <= _LONGEST - len(suffix):
        return parent + suffix
    digest = hashlib.md5(parent.encode(), usedforsecurity=False).hexdigest()
    return f"{parent[: _LONGEST - _DIGEST - len(suffix)]}{digest}{suffix}"


def deployment_name(revision: str) -> str:
    """The Deployment of a Revision."""
    return child_name(revision, "-deployment")
