"""Kubernetes objects as YAML: read as Kubernetes reads them, written so that every YAML reader agrees.

Kubernetes reads YAML with sigs.k8s.io/yaml (YAML 1.1 as go-yaml v2 has it, then JSON), which differs from PyYAML: `y`
and `1e3` are not text there, `08`, `0o400` and `1_000` are numbers, dates and `1:30` are text. `read_documents` follows
Kubernetes, so that a command sees the object that the API server would see: JSON is read as JSON, also several objects
one after the other, and merge keys (`<<`) count as go-yaml has them. `write_documents` quotes any text
that YAML 1.1, YAML 1.2 or Kubernetes could read as another type. Comments and anchors do not survive: an anchor
is written out wherever it was used.

No message repeats a value: manifests should not hold secrets, and sometimes do.
"""

from __future__ import annotations

import codecs
import math
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from server.files import UnusableInputError, read_bounded, read_stream
from server.text import printable
from server.yaml.json_texts import read_json_texts
from server.yaml.nodes import TAG, Bounds, Budget, SafeLoader, UnusableYamlError, documents, line_of

STDIN: Final = "-"
# The API server takes objects of up to 1.5 MiB (etcd's own limit); a bundle of a whole product fits too.
MAX_BYTES: Final = 8 << 20
# Deeper than any CRD schema that is in use, far below what Python's recursion bears.
BOUNDS: Final = Bounds(depth=100, nodes=1_000_000)


@dataclass(frozen=True, slots=True)
class Document:
    """One document: a Kubernetes object (a mapping with `apiVersion` and `kind`), and its place.

    `source` names the file in messages; `line` counts from 1. The caller may change `object`. `node` is what YAML was
    composed to, None for JSON; `span` is the place of a JSON text, in characters behind a byte order mark.
    """

    object: dict[str, Any]
    source: str
    line: int
    node: yaml.Node | None = field(default=None, compare=False, repr=False)
    span: tuple[int, int] = field(default=(0, 0), compare=False, repr=False)

    @property
    def place(self) -> str:
        """`FILE:LINE`, as compilers write it."""
        return f"{self.source}:{self.line}"


def read_documents(path: str, *, max_bytes: int = MAX_BYTES) -> list[Document]:
    """The objects in the file, `-` for standard input, in their order; empty documents are left out.

    Raises UnusableInputError: unreadable, too large, not YAML, a key given twice, not a Kubernetes object, no object.
    """
    return parse_documents(*_content(path, max_bytes))


def read_with_text(path: str) -> tuple[str, list[Document]]:
    """As `read_documents`, with the text that the documents' nodes and spans count in. Raises UnusableInputError."""
    content, source = _content(path, MAX_BYTES)
    return decoded(content, source), parse_documents(content, source)


def _content(path: str, max_bytes: int) -> tuple[bytes, str]:
    if path == STDIN:
        return read_stream(sys.stdin.buffer, "standard input", max_bytes), "standard input"
    return read_bounded(Path(path), max_bytes), path


def parse_documents(content: bytes, source: str) -> list[Document]:
    """As `read_documents`, of bytes; `source` stands for the file in messages."""
    found = []
    for each in _read(decoded(content, source), source, BOUNDS):
        if each.value is None:
            continue
        if not is_object(each.value):
            raise UnusableInputError(f"{source}:{each.line}: not a Kubernetes object; it needs apiVersion and kind")
        _add_implied_kinds(each.value)
        if not _holds_objects(each.value):
            raise UnusableInputError(
                f"{source}:{each.line}: an item of the List is not an object with apiVersion and kind"
            )
        found.append(Document(each.value, source, each.line, each.node, each.span))
    if not found:
        raise UnusableInputError(f"{source}: holds no Kubernetes object")
    return found


def decoded(content: bytes, source: str) -> str:
    """The text, without a byte order mark: UTF-8, or UTF-16 where its mark says so. Raises UnusableInputError.

    kubectl reads both, because PowerShell redirects a command's output into UTF-16.
    """
    mark, encoding = _encoding(content)
    try:
        return content[len(mark) :].decode(encoding)
    except UnicodeDecodeError:
        raise UnusableInputError(f"{source}: not {encoding.upper().removesuffix('-LE').removesuffix('-BE')}") from None


def encoded_like(text: str, content: bytes) -> bytes:
    """The text as `decoded` would read it, in the encoding of the content and with its byte order mark."""
    mark, encoding = _encoding(content)
    return mark + text.encode(encoding)


def _encoding(content: bytes) -> tuple[bytes, str]:
    """The byte order mark, if there is one, and the encoding that it says."""
    return next((each for each in _MARKS if content.startswith(each[0])), (b"", "utf-8"))


_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def read_values(content: bytes, source: str, *, bounds: Bounds = BOUNDS) -> Iterator[tuple[Any, int]]:
    """Each document's value, whatever it is, and its first line; `source` stands for the file in messages.

    Raises UnusableInputError.
    """
    for each in _read(decoded(content, source), source, bounds):
        yield each.value, each.line


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
    items = list_items(value)
    if items is None:
        yield value
        return
    for item in items:
        if is_object(item):
            yield from each_object(item)


def list_items(value: dict[str, Any]) -> list[Any] | None:
    """What a list holds, such as `kubectl get -o yaml` prints of several objects; None for any other object."""
    items = value.get("items")
    return items if value["kind"].endswith("List") and isinstance(items, list) else None


def _add_implied_kinds(value: dict[str, Any]) -> None:
    """Give the items of a typed list, such as a `PodList`, the kind that it implies, as kubectl does.

    The API server leaves out the kind of such items.
    """
    implied = {"apiVersion": value["apiVersion"], "kind": value["kind"].removesuffix("List")}
    items = list_items(value) or []
    for index, item in enumerate(items):
        if implied["kind"] and isinstance(item, dict) and not any(item.get(key) for key in implied):
            items[index] = implied | item | implied  # first, and in place of empty ones
        if is_object(items[index]):
            _add_implied_kinds(items[index])


def _holds_objects(value: dict[str, Any]) -> bool:
    """Whether a list, and each list in it, holds nothing but objects. True for any other object."""
    return all(is_object(item) and _holds_objects(item) for item in list_items(value) or [])


# --- reading ---------------------------------------------------------------------------------------------------------


class _Value(NamedTuple):
    value: Any
    line: int
    node: yaml.Node | None = None
    span: tuple[int, int] = (0, 0)


def _read(text: str, source: str, bounds: Bounds) -> Iterator[_Value]:
    """The JSON texts at the start, as kubectl tries first, then the YAML documents behind them."""
    rest = 0
    try:
        values, rest = read_json_texts(text, bounds)
        for each in values:
            yield _Value(each.value, text.count("\n", 0, each.start) + 1, None, (each.start, each.end))
        if values and not text[rest:].strip():
            return
        reader = _Reader(source, bounds)
        # Blank what was JSON, so that lines and marks still count from the file's start.
        remaining = _NOT_BREAKS.sub(" ", text[:rest]) + text[rest:] if rest else text
        for node, _ in documents(remaining.encode(), KubernetesLoader, bounds):
            yield _Value(reader.value(node), line_of(node), node)
    except UnusableYamlError as error:
        raise UnusableInputError(f"{source}{error}") from None


_NOT_BREAKS = re.compile(r"[^\r\n]")

# Given to scalars that have neither quotes nor a tag, which Kubernetes' own rules then resolve. No file can write it.
_PLAIN: Final = "\0plain"


class KubernetesLoader(SafeLoader):  # type: ignore[misc]
    """Composes nodes whose unquoted scalars have no type yet."""

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
        for key_node, value_node in node.value:
            if is_merge_key(key_node):
                # As go-yaml v2 has it: in the order of the text, so a merge wins over the keys above it.
                result |= self._merged(value_node, depth)
                continue
            key = self._key(key_node)
            line = line_of(key_node)
            if key in lines:
                raise self._refuse(key_node, f"key {printable(key[:100])} given twice, first on line {lines[key]}")
            lines[key] = line
            result[key] = self._value(value_node, depth + 1)
        return result

    def _merged(self, node: yaml.Node, depth: int) -> dict[str, Any]:
        if not isinstance(node, yaml.SequenceNode):
            return self._merged_one(node, depth + 1)
        merged: dict[str, Any] = {}
        for item in reversed(node.value):  # the earlier ones of a list win
            merged |= self._merged_one(item, depth + 2)
        return merged

    def _merged_one(self, node: yaml.Node, depth: int) -> dict[str, Any]:
        value = self._value(node, depth)
        if not isinstance(value, dict):
            raise self._refuse(node, "a merge key (<<) takes a mapping or a list of mappings, such as <<: *defaults")
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


def is_merge_key(node: yaml.Node) -> bool:
    """Whether the key is `<<` without quotes."""
    return bool(node.tag == _PLAIN and node.value == "<<")


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
