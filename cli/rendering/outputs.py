"""The folder that a rendering is written to, compared with, and what differs from the one before, in words."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import yaml

from cli.conversion.source import rewritten
from cli.rendering.changes import in_words
from cli.rendering.files import Inputs
from cli.rendering.rendering import Rendering
from cli.support.whole_file import write_whole
from measured.policy import PolicyError, read_policy
from server.files import UnusableInputError, read_bounded
from server.yaml.kubernetes import Document

POLICY: Final = "policy.rego"
RECORD: Final = "appraisal.yaml"
GUEST: Final = "guest.yaml"
_FOR_A_GUEST: Final = "# For the entry of this guest in the reference values, beside its measurements (docs/kms.md).\n"
_MAX: Final = 4 * 1024 * 1024


class _Dumper(yaml.SafeDumper):
    """Long texts as blocks, so that the document can be read in a review."""


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)


def texts(rendering: Rendering, inputs: Inputs, source: str, documents: list[Document], index: int) -> dict[str, str]:
    """The files' content by name. The author's comments and order stay; `index`: the object among the documents."""
    objects = [document.object for document in documents]
    objects[index] = rendering.source.result
    applied, _ = rewritten(source, documents, objects)
    trusted = "" if inputs.trust is not None else "# Not for production: rendered without --trust.\n"
    record = yaml.dump(dict(rendering.record), Dumper=_Dumper, sort_keys=False, width=2**30, allow_unicode=True)
    name, head = (RECORD, "") if rendering.source.injects else (GUEST, _FOR_A_GUEST)
    return {rendering.source.file: applied, POLICY: rendering.policy, name: trusted + head + record}


def write(folder: Path, files: Mapping[str, str]) -> None:
    """Write the files, each whole or not at all. Raises UnusableInputError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UnusableInputError(f"{folder}: {error.strerror}") from None
    for name, text in files.items():
        write_whole(folder / name, text.encode(), 0o644)


def differing(folder: Path, files: Mapping[str, str]) -> list[str]:
    """The names of the files that the folder does not hold just so."""
    found = []
    for name, text in files.items():
        try:
            content = read_bounded(folder / name, _MAX)
        except UnusableInputError:
            content = b""
        if content != text.encode():
            found.append(name)
    return found


def changes(folder: Path, rendering: Rendering) -> list[str]:
    """What the folder's former policy pinned otherwise, a line each; nothing without one."""
    try:
        former = read_policy(read_bounded(folder / POLICY, _MAX).decode("ascii")).data
    except (UnusableInputError, PolicyError, UnicodeDecodeError):
        return []
    try:
        lines = in_words(former, rendering.data)
    except (KeyError, TypeError, AttributeError, ValueError):
        lines = ["the former policy's data has a form that no pod gives"]
    return [f"changed         {line}" for line in lines]
