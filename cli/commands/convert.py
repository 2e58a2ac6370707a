"""`morphisms convert`: translates other secret injectors' annotations into ours, and lists those that have no equal."""

from __future__ import annotations

import argparse
import os
import sys
from functools import partial
from typing import Any

from cli.conversion.convert import Message, convert
from cli.conversion.leftovers import is_stored, stored_references
from cli.conversion.source import rewritten
from cli.support.manifests import add_namespace, load_configuration
from server.files import UnusableInputError
from server.text import printable
from server.yaml.kubernetes import Document, each_object, list_items, read_with_text
from webhook.configuration.model import Configuration

HELP = "translate annotations of the Vault Agent Injector, OpenBao's and Bank-Vaults into ours"
EXAMPLE = "morphisms convert -f service.yaml > converted.yaml"

TRANSLATED, LEFT, UNUSABLE = 0, 1, 2
_YELLOW, _CYAN, _RESET = "\x1b[33m", "\x1b[36m", "\x1b[0m"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.description = (
        f"{HELP[0].upper()}{HELP[1:]}.\n\n"
        "The converted manifest goes to stdout as it was written: comments, order and quotes stay, JSON stays JSON.\n"
        "Messages go to stderr, all in one pass: 'left' marks what a person has to translate, be it an annotation, a\n"
        "reference, or an object that references may hide in; 'note' a translation that is not quite the same. In\n"
        "kinds that convert does not know, it translates nothing and names every annotation and reference of another\n"
        "injector.\n\n"
        "Exit codes: 0 all translated, read the notes; 1 something is left; 2 unusable input."
    )
    parser.add_argument("-f", "--file", metavar="FILE", required=True, help="YAML or JSON; - for standard input")
    add_namespace(parser)
    parser.add_argument("--config", metavar="FILE", help="configuration, for its KV mounts; without it the defaults")


def run(arguments: argparse.Namespace) -> int:
    """Convert the file; returns the exit code."""
    configuration = load_configuration(arguments.config)
    try:
        text, documents = read_with_text(arguments.file)
    except UnusableInputError as error:
        print(f"morphisms convert: {error}", file=sys.stderr)
        return UNUSABLE
    objects, messages = convert_documents(documents, configuration, arguments.namespace or "default")
    converted, anew = rewritten(text, documents, objects)
    sys.stdout.write(converted)
    color = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    for document in anew:
        lost = "its comments and anchors are lost: the changed document cannot be written with them"
        print(f"{_word(color, left=False)}: {printable(document.place)}: {lost}", file=sys.stderr)
    for message in messages:
        print(_line(message, color), file=sys.stderr)
    return LEFT if any(message.left for message in messages) else TRANSLATED


def convert_documents(
    documents: list[Document], configuration: Configuration, namespace: str = "default"
) -> tuple[list[dict[str, Any]], list[Message]]:
    """The objects, converted, and every message, in the documents' order.

    `namespace` is that of objects which name none: it says which ConfigMaps belong to which pod.
    """
    stored = _Stored([document.object for document in documents], namespace)
    messages: list[Message] = []
    return [_converted(document.object, configuration, stored, messages) for document in documents], messages


class _Stored:
    """The ConfigMaps and Secrets in the input, and which of their keys hold references."""

    def __init__(self, objects: list[dict[str, Any]], namespace: str) -> None:
        self._namespace = namespace
        self._objects: dict[tuple[str, str, str], dict[str, bool]] = {}
        for object_ in (each for top in objects for each in each_object(top)):
            metadata = object_.get("metadata")
            if is_stored(object_) and isinstance(metadata, dict):
                at = (object_["kind"], self.namespace_of(object_), str(metadata.get("name")))
                self._objects[at] = stored_references(object_)

    def namespace_of(self, object_: dict[str, Any]) -> str:
        """The object's namespace, or the one of those that name none."""
        metadata = object_.get("metadata")
        named = metadata.get("namespace") if isinstance(metadata, dict) else None
        return named if isinstance(named, str) else self._namespace

    def holds(self, namespace: str, kind: str, name: str, key: str | None) -> bool | None:
        """Whether the key (None: any key) holds a reference; None where the input has no such object."""
        keys = self._objects.get((kind, namespace, name))
        return None if keys is None else keys.get(key, False) if key is not None else any(keys.values())


def _converted(
    object_: dict[str, Any], configuration: Configuration, stored: _Stored, messages: list[Message]
) -> dict[str, Any]:
    if (items := list_items(object_)) is not None:
        return object_ | {"items": [_converted(item, configuration, stored, messages) for item in items]}
    result = convert(object_, configuration, partial(stored.holds, stored.namespace_of(object_)))
    messages.extend(result.messages)
    return result.object


def _word(color: bool, *, left: bool) -> str:
    word = "left" if left else "note"
    return f"{_YELLOW if left else _CYAN}{word}{_RESET}" if color else word


def _line(message: Message, color: bool) -> str:
    return f"{_word(color, left=message.left)}: {message}"
