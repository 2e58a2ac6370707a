"""JSON texts one after the other, as `kubectl get -o json | jq '.items[]'` prints them.

What Go's encoding/json and Kubernetes make of a text that Python's module takes or leaves otherwise: a name given twice
is refused, half of a surrogate pair becomes U+FFFD, `1.0` is the number `1`.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

from server.text import printable
from server.yaml.nodes import Bounds, UnusableYamlError

_SPACE = re.compile(r"[ \t\r\n]*")
_SEPARATOR = re.compile(r"---[ \t]*(?:\r?\n|$)")
_NULL = re.compile(r"null(?=[ \t\r\n{]|$)")
_HALF_PAIR = re.compile(r"\\u[dD][89a-fA-F]")
# Beyond it Go's JSON writes an exponent; up to it a whole number looks the same whatever type it was.
_WHOLE_BELOW: Final = 1e21


@dataclass(frozen=True, slots=True)
class JsonText:
    """One value, and where its text starts and ends."""

    value: Any
    start: int
    end: int


class _TwiceError(Exception):
    """A name is given twice in one object."""


def read_json_texts(text: str, bounds: Bounds) -> tuple[list[JsonText], int]:
    """The objects at the start of the text, and where the rest starts: its end, or a `---` before what is no JSON.

    No object where the text is not JSON, or goes on in a way that only YAML has. Raises UnusableYamlError.
    """
    found: list[JsonText] = []
    at = rest = 0
    while True:
        start = _skip(text, at)
        if start < len(text) and text[start] == "{":
            try:
                value, at = _DECODER.raw_decode(text, start)
            except _TwiceError as error:
                raise UnusableYamlError(_line(text, start), f"key {error} given twice") from None
            except RecursionError:
                raise UnusableYamlError(_line(text, start), f"nested deeper than {bounds.depth}") from None
            except ValueError:
                return ([], 0) if not found or rest == 0 else (found, rest)
            _check(value, bounds, _line(text, start))
            found.append(JsonText(_without_halves(value, text[start:at]), start, at))
            rest = 0
        elif start == len(text):
            return found, start
        elif (separator := _SEPARATOR.match(text, start)) and text[start - 1 : start] in ("", "\n"):
            rest, at = start, separator.end()
        elif null := _NULL.match(text, start):  # an empty document, which jq prints for an item that is missing
            at = null.end()
        else:
            return (found, rest) if rest else ([], 0)


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return at if match is None else match.end()


def _line(text: str, at: int) -> str:
    return f":{text.count(chr(10), 0, at) + 1}"


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        twice = next(name for name, times in Counter(name for name, _ in pairs).items() if times > 1)
        raise _TwiceError(printable(twice[:100]))
    return result


def _number(text: str) -> int | float:
    number = float(text)
    if math.isinf(number):
        raise ValueError("out of range")
    return int(number) if number.is_integer() and abs(number) < _WHOLE_BELOW else number


def _integer(text: str) -> int | float:
    number = int(text)
    return number if -(2**63) <= number < 2**64 else _number(text)


def _constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_object, parse_float=_number, parse_int=_integer, parse_constant=_constant
)


def _check(value: Any, bounds: Bounds, where: str) -> None:
    nodes, layer, depth = 0, [value], 0
    while layer:
        nodes += len(layer)
        if depth > bounds.depth or nodes > bounds.nodes:
            raise UnusableYamlError(where, "too many values, or nested too deep")
        depth += 1
        layer = [
            item
            for each in layer
            if isinstance(each, dict | list)
            for item in (each.values() if isinstance(each, dict) else each)
        ]


def _without_halves(value: Any, text: str) -> Any:
    return _mended(value) if _HALF_PAIR.search(text) else value


def _mended(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, dict):
        return {_mended(key): _mended(item) for key, item in value.items()}
    return [_mended(item) for item in value] if isinstance(value, list) else value
