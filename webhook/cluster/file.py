"""A cluster described by a file: what `kubectl get namespaces,nodes,runtimeclasses -o yaml` (or `-o json`) prints."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import jiter

from server.files import UnusableInputError, read_bounded
from server.yaml.kubernetes import read_values
from server.yaml.nodes import Bounds
from server.yaml.strict import ConfigurationError
from webhook.configuration.model import Configuration
from webhook.snapshot import LISTED_KINDS, Fetched, Lookup, Snapshot, find_in_objects, snapshot_of_objects


class SnapshotFileError(ConfigurationError):
    """A snapshot file that cannot be used; the message names file and place, never a value."""

    def __init__(self, problem: str) -> None:
        super().__init__([problem])


MAX_JSON_BYTES: Final = 64 << 20
MAX_YAML_BYTES: Final = 16 << 20
# A node is two characters at least; Kubernetes writes no aliases.
_BOUNDS: Final = Bounds(depth=100, nodes=MAX_YAML_BYTES // 2, aliases=False)


def read_objects(path: Path) -> list[dict[str, Any]]:
    """The objects of a file: JSON or YAML, documents of `kind: List` or of one object each. Raises SnapshotFileError.

    At most MAX_JSON_BYTES as JSON, MAX_YAML_BYTES as YAML, which takes fifty times as long and as much memory.
    """
    try:
        content = read_bounded(path, MAX_JSON_BYTES)
        documents = _json(content)
        if documents is None:
            if len(content) > MAX_YAML_BYTES:
                raise SnapshotFileError(f"{path}: larger than {MAX_YAML_BYTES} bytes as YAML; write it with -o json")
            documents = [value for value, _ in read_values(content, str(path), bounds=_BOUNDS)]
    except UnusableInputError as error:
        raise SnapshotFileError(str(error)) from None
    objects: list[dict[str, Any]] = []
    for number, document in enumerate(documents, 1):
        if document is not None:
            objects += _objects(document, f"{path}: document {number}")
    if not objects:
        raise SnapshotFileError(f"{path}: holds no objects")
    return objects


def _json(content: bytes) -> list[Any] | None:
    if not content.lstrip().startswith(b"{"):
        return None
    try:
        return [jiter.from_json(content, allow_inf_nan=False)]
    except ValueError:  # several documents, YAML in braces, or neither: the YAML reader says where
        return None


def _objects(document: Any, where: str) -> Iterable[dict[str, Any]]:
    kind = document.get("kind") if isinstance(document, Mapping) else None
    if not isinstance(kind, str):
        raise SnapshotFileError(f"{where}: not an object with a kind; get one with: kubectl get -o json ...")
    if not kind.endswith("List"):
        return [dict(document)]
    items = document.get("items")
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise SnapshotFileError(f"{where}: items is not a list of objects")
    # The API server's own NodeList leaves version and kind of its items out.
    version = {"apiVersion": document["apiVersion"]} if "apiVersion" in document else {}
    default = version | {"kind": kind.removesuffix("List")} if kind != "List" else {}
    return [{**default, **item} for item in items]


class FileCluster:
    """A `webhook.cluster.protocol.Cluster` that never ages; a namespace that the file does not list has no mode."""

    def __init__(self, objects: Iterable[Mapping[str, Any]]) -> None:
        objects = list(objects)
        self._snapshot = snapshot_of_objects(objects)
        self._found = [item for item in objects if item.get("kind") in LISTED_KINDS]

    @classmethod
    def read(cls, path: Path) -> FileCluster:
        """The cluster in a file that `read_objects` can read. Raises SnapshotFileError."""
        return cls(read_objects(path))

    def current(self) -> Snapshot:
        """The file's view, at this moment. Its nodes keep all their labels, so no configuration changes it."""
        return replace(self._snapshot, now=datetime.now(UTC))

    def configured(self, configuration: Configuration) -> None:
        """Do nothing: the view holds every label already."""

    def problem(self) -> str | None:
        """None: the file was read already."""
        return None

    async def run(self) -> None:
        """Wait until cancelled; nothing changes."""
        await asyncio.get_running_loop().create_future()

    async def look_up(self, lookup: Lookup) -> Fetched:
        """As `Cluster.look_up`."""
        return find_in_objects(self._found, lookup)
