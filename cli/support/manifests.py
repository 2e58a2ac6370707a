"""The commands' input: manifests, the configuration, a cluster's snapshot. Values never reach a message."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from server.files import UnusableInputError, read_bounded, read_stream
from server.text import printable
from server.yaml.kubernetes import (
    MAX_BYTES,
    STDIN,
    Document,
    is_object,
    list_items,
    parse_documents,
    read_documents,
    read_values,
)
from server.yaml.strict import ConfigurationError
from webhook import configuration_file
from webhook.configuration.exceptions import read_time
from webhook.configuration.model import Configuration
from webhook.errors import MalformedError
from webhook.pod.schema import validate_metadata_shape
from webhook.snapshot import Snapshot, snapshot_of_objects

_SUFFIXES: Final = (".yaml", ".yml", ".json")
_MAX_NAME: Final = 253
_DNS_LABEL: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Manifest:
    """One Kubernetes object, on its own or out of a List; its metadata can be read. `source` names its file.

    `default_namespace` is the namespace of an object that names none, as `--namespace` says it; None: it was not said.
    """

    object: dict[str, Any]
    source: str
    line: int
    default_namespace: str | None = None

    @property
    def kind(self) -> str:
        """The object's kind."""
        return str(self.object["kind"])

    @property
    def namespace(self) -> str:
        """The namespace in which `kubectl` would create it."""
        return self._own_namespace or self.default_namespace or "default"

    @property
    def is_namespace_guessed(self) -> bool:
        """Whether neither the object nor `--namespace` says the namespace."""
        return not self._own_namespace and self.default_namespace is None

    @property
    def _own_namespace(self) -> str:
        return (self.object.get("metadata") or {}).get("namespace") or ""

    @property
    def name(self) -> str:
        """Its name, or the prefix of the one that the API server will make."""
        metadata = self.object.get("metadata") or {}
        return metadata.get("name") or metadata.get("generateName") or "(unnamed)"

    @property
    def title(self) -> str:
        """`Kind/namespace/name`, fit for a terminal."""
        return "/".join(printable(part[:_MAX_NAME]) for part in (self.kind, self.namespace, self.name))

    def unusable(self, error: MalformedError) -> UnusableInputError:
        """The error for an object that does not have its kind's shape; it names the place and no content."""
        return UnusableInputError(f"{self.source}:{self.line}: {self.title}: {error}")


def add_namespace(parser: argparse.ArgumentParser) -> None:
    """Declare `--namespace`."""
    parser.add_argument(
        "-n",
        "--namespace",
        type=_namespace,
        metavar="NAME",
        help="the namespace of objects that name none, as `kubectl apply -n` has it; without it: default",
    )


def add_time(parser: argparse.ArgumentParser) -> None:
    """Declare `--at`."""
    parser.add_argument(
        "--at",
        type=_time,
        metavar="TIME",
        help="the time that decides which exceptions are in force, such as 2027-01-31T12:00:00Z; without it: now",
    )


def _time(text: str) -> datetime:
    try:
        return read_time(text)
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(
            "neither a date nor a time with its zone; write one such as 2027-01-31 or 2027-01-31T12:00:00Z"
        ) from None


def _namespace(text: str) -> str:
    if not _DNS_LABEL.fullmatch(text):
        raise argparse.ArgumentTypeError("not the name of a namespace; write one such as shop")
    return text


def guessed_namespace(manifests: Iterable[Manifest]) -> str | None:
    """The message about objects whose namespace nothing says; None where all say it."""
    guessed = sum(manifest.is_namespace_guessed for manifest in manifests)
    if not guessed:
        return None
    objects = "1 object names" if guessed == 1 else f"{guessed} objects name"
    return f"{objects} no namespace; `default` was assumed: say it with --namespace"


def unlisted_namespaces(manifests: Iterable[Manifest], snapshot: Snapshot | None) -> str | None:
    """The message about the objects' namespaces that the snapshot does not list; None where it lists them all."""
    if snapshot is None:
        return None
    names = sorted({manifest.namespace for manifest in manifests} - snapshot.namespaces.keys())
    if not names:
        return None
    listed = ", ".join(printable(name[:_MAX_NAME]) for name in names)
    counts = "namespace {}, which counts" if len(names) == 1 else "namespaces {}, which count"
    return (
        f"the snapshot does not list {counts.format(listed)} as without a mode: add the Namespace, or say --namespace"
    )


def manifests_of(document: Document, namespace: str | None = None) -> Iterator[Manifest]:
    """The document's object, or each one of a List. Raises UnusableInputError rather than leave one out.

    `namespace` is that of the objects which name none.
    """
    items = list_items(document.object)
    for item in [document.object] if items is None else items:
        if item is not document.object and list_items(item) is not None:
            raise UnusableInputError(f"{document.place}: a List inside a List")
        manifest = Manifest(item, printable(document.source), document.line, namespace)
        try:
            validate_metadata_shape(item)
        except MalformedError as error:
            raise UnusableInputError(f"{document.place}: {error}") from None
        yield manifest


def files_in(path: str) -> list[str]:
    """The file itself; of a folder every YAML and JSON file below it, sorted, hidden folders left out."""
    if path == STDIN or not Path(path).is_dir():
        return [path]
    found = []
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [str(Path(folder, name)) for name in sorted(names) if name.endswith(_SUFFIXES)]
    if not found:
        raise UnusableInputError(f"{path}: no file ends in {', '.join(_SUFFIXES)}")
    return found


@dataclass(frozen=True, slots=True)
class ForeignFile:
    """A file of a folder that holds no Kubernetes object, such as a chart's values, and what it is instead."""

    path: str
    reason: str


def read_all(path: str, namespace: str | None) -> tuple[list[Manifest], list[ForeignFile]]:
    """The objects in the file; of a folder those in every file below it, and the files that hold none.

    Raises UnusableInputError, also for a file that holds objects and something else, or no YAML and no template.
    """
    if path == STDIN or not Path(path).is_dir():
        return [manifest for document in read_documents(path) for manifest in manifests_of(document, namespace)], []
    manifests: list[Manifest] = []
    foreign: list[ForeignFile] = []
    for file in files_in(path):
        content = read_bounded(Path(file), MAX_BYTES)
        reason = _foreign(content, file)
        if reason:
            foreign.append(ForeignFile(printable(file), reason))
        else:
            documents = parse_documents(content, file)
            manifests += [manifest for document in documents for manifest in manifests_of(document, namespace)]
    if not manifests:
        raise UnusableInputError(f"{path}: no file holds a Kubernetes object")
    return manifests, foreign


def _foreign(content: bytes, file: str) -> str:
    """What the file is instead of Kubernetes objects; empty for a file of objects, and for one that is broken."""
    try:
        values = [value for value, _ in read_values(content, file)]
    except UnusableInputError:
        return "a template; render it first" if b"{{" in content else ""
    return "" if any(is_object(value) for value in values) else "no Kubernetes object"


def read_bytes(path: str) -> bytes:
    """The file's content, `-` for standard input. Raises UnusableInputError."""
    if path == STDIN:
        return read_stream(sys.stdin.buffer, "standard input", MAX_BYTES)
    return read_bounded(Path(path), MAX_BYTES)


def load_configuration(path: str | None) -> Configuration:
    """The configuration in the file, the documented defaults without one."""
    if path is None:
        return Configuration()
    try:
        return configuration_file.load_configuration(Path(path)).value
    except ConfigurationError as error:
        raise UnusableInputError("; ".join(error.problems)) from None


def load_snapshot(path: str | None) -> Snapshot | None:
    """The cluster in the file; None without one."""
    return None if path is None else snapshot_of_objects(read_snapshot_objects(path))


def read_snapshot_objects(path: str) -> list[Any]:
    """The objects in the `kind: List` that `kubectl get namespaces,nodes,runtimeclasses -o yaml` prints."""
    return [manifest.object for document in read_documents(path) for manifest in manifests_of(document)]
