"""`morphisms convert`: translates other secret injectors' annotations into ours, and lists those that have no equal."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from cli.conversion.convert import Message, convert
from cli.support.manifests import load_configuration
from server.files import UnusableInputError
from server.yaml.kubernetes import Document, is_object, read_documents, write_documents
from webhook.configuration.model import Configuration

HELP = "translate annotations of the Vault Agent Injector, OpenBao's and Bank-Vaults into ours"
EXAMPLE = "morphisms convert -f service.yaml > converted.yaml"

TRANSLATED, LEFT, UNUSABLE = 0, 1, 2
_YELLOW, _CYAN, _RESET = "\x1b[33m", "\x1b[36m", "\x1b[0m"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.description = (
        f"{HELP[0].upper()}{HELP[1:]}.\n\n"
        "The converted YAML goes to stdout, messages go to stderr: 'left' marks an annotation that a person has to\n"
        "translate, 'note' a translation that is not quite the same. Comments and anchors of the input are lost.\n"
        "Exit codes: 0 all translated, read the notes; 1 an annotation is left; 2 unusable input."
    )
    parser.add_argument("-f", "--file", metavar="FILE", required=True, help="YAML documents; - for standard input")
    parser.add_argument("--config", metavar="FILE", help="configuration, for its KV mounts; without it the defaults")


def run(arguments: argparse.Namespace) -> int:
    """Convert the file; returns the exit code."""
    return convert_file(arguments.file, load_configuration(arguments.config))


def convert_file(path: str, configuration: Configuration) -> int:
    """As `run`, with the configuration that says which mounts are KV version 2."""
    try:
        documents = read_documents(path)
    except UnusableInputError as error:
        print(f"morphisms convert: {error}", file=sys.stderr)
        return UNUSABLE
    objects, messages = convert_documents(documents, configuration)
    sys.stdout.write(write_documents(objects))
    color = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    for message in messages:
        print(_line(message, color), file=sys.stderr)
    return LEFT if any(message.left for message in messages) else TRANSLATED


def convert_documents(
    documents: list[Document], configuration: Configuration
) -> tuple[list[dict[str, Any]], list[Message]]:
    """The objects, converted, and every message, in the documents' order."""
    messages: list[Message] = []
    return [_converted(document.object, configuration, messages) for document in documents], messages


def _converted(object_: dict[str, Any], configuration: Configuration, messages: list[Message]) -> dict[str, Any]:
    items = object_.get("items")
    if object_["kind"].endswith("List") and isinstance(items, list):
        return object_ | {
            "items": [_converted(item, configuration, messages) if is_object(item) else item for item in items]
        }
    result = convert(object_, configuration)
    messages.extend(result.messages)
    return result.object


def _line(message: Message, color: bool) -> str:
    word = "left" if message.left else "note"
    if color:
        word = f"{_YELLOW if message.left else _CYAN}{word}{_RESET}"
    return f"{word}: {message}"
