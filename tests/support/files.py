"""Files that a running program watches."""

from __future__ import annotations

from pathlib import Path


def replace(path: Path, text: str) -> None:
    """Give the file a new content at once, as the kubelet does: nothing reads it empty or half."""
    unfinished = path.with_name(f".{path.name}.new")
    unfinished.write_text(text)
    unfinished.replace(path)
