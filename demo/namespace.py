"""A mount namespace for a pod: root's own, or one that an unprivileged user may have."""

from __future__ import annotations

import os
import shutil
from typing import Final

from demo.process import run

# What util-linux needs to make each; --propagation private is its default.
_AS_ROOT: Final = ("unshare", "--mount")
_AS_USER: Final = ("unshare", "--user", "--map-root-user", "--mount")


class Namespace:
    """`prefix` starts a command in it. `maps_users`: whether other users' ids exist inside."""

    def __init__(self, prefix: tuple[str, ...], *, maps_users: bool) -> None:
        self.prefix = prefix
        self.maps_users = maps_users


def find_namespace() -> Namespace | None:
    """The best one that this machine gives us, tried out."""
    if shutil.which("unshare") is None:
        return None
    if os.geteuid() == 0 and _works(_AS_ROOT):
        return Namespace(_AS_ROOT, maps_users=True)
    return Namespace(_AS_USER, maps_users=False) if _works(_AS_USER) else None


def _works(prefix: tuple[str, ...]) -> bool:
    # In a namespace of its own, which ends with the command.
    return run([*prefix, "mount", "-t", "tmpfs", "tmpfs", "/tmp"]).returncode == 0  # noqa: S108
