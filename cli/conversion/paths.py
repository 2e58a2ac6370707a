"""API paths, as both injectors write them, to logical ones: `secret/data/db` on KV version 2 to `secret/db`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from server.text import printable

_NOT_DATA = ("metadata/", "subkeys/")
_QUERY = re.compile(r"version=([1-9][0-9]{0,8})")


class NotLogicalError(ValueError):
    """The path cannot be translated; the message says why and never repeats it."""


@dataclass(frozen=True, slots=True)
class Logical:
    """A logical path. `kv` is the mount's KV version, None when the configuration names no such mount."""

    path: str
    kv: int | None
    version: int | None = None

    def reference(self, key: str = "") -> str:
        """As `secret-NAME` and `env-from` take it: `PATH[#KEY][@N]`."""
        return self.path + (f"#{key}" if key else "") + ("" if self.version is None else f"@{self.version}")


def logical(path: str, mounts: Mapping[str, int]) -> Logical:
    """The logical path of an API path. `mounts` gives the KV version of each mount that the configuration names.

    Raises NotLogicalError, with every reason, for what could be read in two ways.
    """
    path, _, query = path.strip().strip("/").partition("?")
    match = _QUERY.fullmatch(query)
    problems = []
    if query and match is None:
        problems.append("has a query that a KV read does not take; write PATH@N for a version")
    if set("#@~") & set(path):
        problems.append("has a # or @ or ~ in it, which mean key, version and home in our references")
    version = int(match[1]) if match else None
    mount = max((each for each in mounts if path.startswith(each + "/")), key=len, default=None)
    if mount is None and "data" in path.split("/")[1:]:
        # `data` need not be the second part: a mount's own name may have several.
        problems.append(
            "is in a mount that the configuration does not name; add the mount and its KV version to vault.mounts,"
            " or write the path without data/"
        )
    rest = "" if mount is None else path[len(mount) + 1 :]
    if mount is not None and mounts[mount] == 2:
        if "data" in rest.split("/")[1:-1] and not rest.startswith("data/"):
            problems.append(
                f"has data/ below {printable(mount)}, where a mount of its own may start; add that mount and its KV"
                " version to vault.mounts, or write the path without data/"
            )
        if rest.startswith(_NOT_DATA):
            problems.append("reads another part of KV-2's API than data/, which no reference here does")
        rest = rest.removeprefix("data/")
    if problems:
        raise NotLogicalError("; it ".join(problems))
    if mount is None:
        return Logical(path, None, version)
    return Logical(f"{mount}/{rest}", mounts[mount], version)
