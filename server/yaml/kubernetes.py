"""Kubernetes objects as YAML: read as Kubernetes reads them, written so that every YAML reader agrees.

Kubernetes reads YAML with sigs.k8s.io/yaml (YAML 1.1 as go-yaml v2 has it, then JSON), which differs from PyYAML: `y`
and `1e3` are not text there, `08`, `0o400` and `1_000` are numbers, dates and `1:30` are text. `read_documents` follows
Kubernetes, so that a command sees the object that the API server would see. `write_documents` quotes any text
that YAML 1.1, YAML 1.2 or Kubernetes could read as another type. Comments and anchors do not survive: an anchor
is written out wherever it was used.

No message repeats a value: manifests should not hold secrets, and sometimes do.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from server.files import UnusableInputError, read_bounded, read_stream
from server.text import printable
from server.yaml.nodes import TAG, Bounds, Budget, SafeLoader, UnusableYamlError, documents, line_of

STDIN: Final = "-"
# The API server takes objects of up to 1.5 MiB (etcd's own limit); a bundle of a whole product fits too.
MAX_BYTES: Final = 8 << 20
# Deeper than any CRD schema that is in use, far below what Python's recursion bears.
BOUNDS: Final = Bounds(depth=100, nodes=1_000_000)


@dataclass(frozen=True, slots=True)
class Document:
    """One YAML document: a Kubernetes object (a mapping with `apiVersion` and `kind`), and its place.

    `source` names the file in messages; `line` counts from 1. The caller may change `object`.
    """

    object: dict[str, Any]
    source: str
    line: int

    @property
    def place(self) -> str:
        """`FILE:LINE`, as compilers write it."""
        return f"{self.source}:{self.line}"


def read_documents(path: str, *, max_bytes: int = MAX_BYTES) -> list[Document]:
    """The objects in the file, `-` for standard input, in their order; empty documents are left out.

    Raises UnusableInputError: unreadable, too large, not YAML, a key given twice, not a Kubernetes object, no object.
    """
    if path == STDIN:
        return parse_documents(read_stream(sys.stdin.buffer, "standard input", max_bytes), "standard input")
    return parse_documents(read_bounded(Path(path), max_bytes), path)


def parse_documents(content: bytes, source: str) -> list[Document]:
    """As `read_documents`, of bytes; `source` stands for the file in messages."""
    found = []
    for value, line in read_values(content, source):
        if value is None:
            continue
        if not is_object(value):
            raise UnusableInputError(f"{source}:{line}: not a Kubernetes object; it needs apiVersion and kind")
        found.append(Document(value, source, line))
    if not found:
        raise UnusableInputError(f"{source}: holds no Kubernetes object")
    return found


def read_values(content: bytes, source: str, *, bounds: Bounds = BOUNDS) -> Iterator[tuple[Any, int]]:
    """Each document's value, whatever it is, and its first line; `source` stands for the file in messages.

    Raises UnusableInputError.
    """
    reader = _Reader(source, bounds)
    try:
        for node, _ in documents(content, _Loader, bounds):
            yield reader.value(node), line_of(node)
    except UnusableYamlError as error:
        raise UnusableInputError(f"{source}{error}") from None


def write_documents(objects: Iterable[Mapping[str, Any]]) -> str:
    """The objects as YAML documents: block style, keys in their order, no aliases, lines never folded."""
    return "---\n".join(
        yaml.dump(
            each,
            Dumper=_Dumper,
            default_flow_style=False,
            sort_keys=False,
            allow_unicode=True,
            width=sys.maxsize,
        )
        for each in objects
    )


def is_object(value: Any) -> bool:
    """Whether it is a mapping with `apiVersion` and `kind`, as every Kubernetes object is."""
    return isinstance(value, dict) and all(isinstance(value.get(key), str) for key in ("apiVersion", "kind"))


def each_object(value: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The object itself, or those inside when it is a `List` (what `kubectl get -o yaml` prints of several)."""
    items = value.get("items")
    if not (value["kind"].endswith("List") and isinstance(items, list)):
        yield value
        return
    for item in items:
        if is_object(item):
            yield from each_object(item)


# --- reading ---------------------------------------------------------------------------------------------------------

# Given to scalars that have neither quotes nor a tag, which Kubernetes' own rules then resolve. No file can write it.
_PLAIN: Final = "\0plain"


class _Loader(SafeLoader):  # type: ignore[misc]
    yaml_implicit_resolvers: dict[str | None, list[tuple[str, re.Pattern[str]]]] = {  # noqa: RUF012
        None: [(_PLAIN, re.compile(""))]
    }


class _Reader:
    """Nodes to plain data under Kubernetes' rules."""

    def __init__(self, source: str, bounds: Bounds) -> None:
        self._source = source
        self._budget = Budget(bounds)

    def value(self, node: yaml.Node) -> Any:
        """One document's value."""
        return self._value(node, 0)

    def _refuse(self, node: yaml.Node, message: str) -> UnusableInputError:
        return UnusableInputError(f"{self._source}:{line_of(node)}: {message}")

    def _value(self, node: yaml.Node, depth: int) -> Any:
        self._budget.spend(node, depth)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        if isinstance(node, yaml.SequenceNode) and node.tag == TAG + "seq":
            return [self._value(item, depth + 1) for item in node.value]
        if isinstance(node, yaml.MappingNode) and node.tag == TAG + "map":
            return self._mapping(node, depth)
        raise self._refuse(node, "this YAML tag is not supported; leave it out")

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        text: str = node.value
        if node.tag == TAG + "str":
            return text
        value = resolve(text)
        if isinstance(value, float) and not math.isfinite(value):
            raise self._refuse(node, "infinity and NaN are not values of a Kubernetes object; quote it if it is text")
        if node.tag == _PLAIN or node.tag == TAG + _NAMES.get(type(value), ""):
            return value
        raise self._refuse(node, "this YAML tag is not supported; leave it out, or quote the value")

    def _mapping(self, node: yaml.MappingNode, depth: int) -> dict[str, Any]:
        result: dict[str, Any] = {}
        lines: dict[str, int] = {}
        merged: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _PLAIN and key_node.value == "<<":
                if merged or result:
                    # Kubernetes lets a later merge win over keys above it, YAML's own rule is the opposite.
                    raise self._refuse(key_node, "a merge key (<<) must come first and once in its mapping")
                merged = self._merged(value_node, depth)
                continue
            key = self._key(key_node)
            line = line_of(key_node)
            if key in lines:
                raise self._refuse(key_node, f"key {printable(key[:100])} given twice, first on line {lines[key]}")
            lines[key] = line
            result[key] = self._value(value_node, depth + 1)
        return merged | result

    def _merged(self, node: yaml.Node, depth: int) -> dict[str, Any]:
        value = self._value(node, depth + 1)
        if not isinstance(value, dict):
            raise self._refuse(node, "a merge key (<<) takes one mapping")
        return value

    def _key(self, node: yaml.Node) -> str:
        """Keys become text, as sigs.k8s.io/yaml makes them: `8080:` is "8080", `on:` is "true"."""
        value = self._scalar(node) if isinstance(node, yaml.ScalarNode) else None
        if isinstance(value, str):
            return value
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, int):
            return str(value)
        raise self._refuse(node, "a key is not text; quote it")


_NAMES: Final = {bool: "bool", int: "int", float: "float", type(None): "null"}

# go-yaml v2, resolve.go: the words, and the first characters that make it try a number.
_WORDS: Final[dict[str, Any]] = {
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"), True),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"), False),
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), math.inf),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -math.inf),
}
_NUMERIC_START: Final = frozenset("+-.0123456789")
# strconv.ParseInt with base 0, underscores taken out before.
_INTEGER = re.compile(r"([+-]?)(?:(0[xX][0-9a-fA-F]+)|(0[oO]?[0-7]+)|(0[bB][01]+)|(0|[1-9][0-9]*))")
_FLOAT = re.compile(r"[+-]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][+-]?[0-9]+)?")
_STRAY_UNDERSCORE = re.compile(r"(?<![0-9])_|_(?![0-9])")
# Beyond it Go's JSON writes an exponent; up to it a whole number looks the same whatever type it was.
_WHOLE_BELOW: Final = 1e21


def resolve(text: str) -> Any:
    """What Kubernetes reads in an unquoted YAML scalar: text, bool, int, float or None."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in _NUMERIC_START:
        return text
    digits = text.replace("_", "")
    integer = _integer(digits)
    if integer is not None:
        return integer
    # After a leading dot go-yaml leaves the underscores to strconv, which accepts them between digits only.
    if _FLOAT.fullmatch(digits) and not (text[0] == "." and _STRAY_UNDERSCORE.search(text)):
        number = float(digits)
        if math.isinf(number):  # `1e400`, a commit's digest perhaps
            return text
        # JSON has one type of number: 1.0, 1e0 and 1 reach the API server as the same `1`.
        return int(number) if number.is_integer() and abs(number) < _WHOLE_BELOW else number
    return text


def _integer(digits: str) -> int | None:
    # Longer than any 64-bit number in any base, and Python refuses to read thousands of digits.
    match = _INTEGER.fullmatch(digits) if len(digits) <= 100 else None
    if match is None:
        return None
    sign, hexadecimal, octal, binary, decimal = match.groups()
    number = int(octal.lower().replace("o", ""), 8) if octal else int(hexadecimal or binary or decimal, 0)
    number = -number if sign == "-" else number
    # Beyond 64 bits Go falls back to a float, and so to the digits of one.
    return number if -(2**63) <= number < 2**64 else None


# --- writing ---------------------------------------------------------------------------------------------------------


# The pure Python emitter: libyaml's lays some texts out differently, and the same input should give the same bytes.
class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar(TAG + "str", text, style=_style(dumper, text))


# Line breaks for YAML 1.1 alone: only escapes carry them to every reader.
_OLD_BREAKS = re.compile("[\x85\u2028\u2029]")


def _style(dumper: _Dumper, text: str) -> str | None:
    if _OLD_BREAKS.search(text):
        return '"'
    if "\n" in text:
        return "|"
    # PyYAML knows YAML 1.1 as it is written, `resolve` as Kubernetes reads it; together they hold YAML 1.2's words too.
    tag = dumper.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
    alike = tag != TAG + "str" or not isinstance(resolve(text), str)
    return '"' if alike else None


_Dumper.add_representer(str, _represent_text)
