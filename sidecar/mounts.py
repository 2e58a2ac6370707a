"""Which KV mount of Vault a secret's path belongs to."""

from __future__ import annotations

from collections.abc import Mapping


def mount_of(mounts: Mapping[str, int], path: str) -> str | None:
    """The KV mount that a logical path is below; None for any other engine, whose credentials have a lease."""
    return max((name for name in mounts if path.startswith(f"{name}/")), key=len, default=None)
