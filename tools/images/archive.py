"""A root file system as the layer that a registry would store."""

from __future__ import annotations

import gzip
import tarfile
from pathlib import Path


def pack(root: Path, archive: Path) -> int:
    """Write tar and gzip in a fixed order, owned by root; the size in bytes."""
    with (
        archive.open("wb") as file,
        gzip.GzipFile("", "wb", 6, file, mtime=0) as stream,
        tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for path in [root, *sorted(root.rglob("*"))]:
            tar.add(path, path.relative_to(root).as_posix(), recursive=False, filter=_owned_by_root)
    return archive.stat().st_size


def _owned_by_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member
