"""Go's forms of values: what a ConfigMap holds, and what encoding/json writes."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import Any, Final

_DURATION: Final = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
_UNITS: Final = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_TRUE: Final = ("1", "t", "T", "TRUE", "true", "True")
_FALSE: Final = ("0", "f", "F", "FALSE", "false", "False")
_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,18}")
_FLOAT: Final = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,2})?")


def parse_duration(text: str) -> int:
    """Nanoseconds of time.ParseDuration's form, such as 1m30s. Raises ValueError."""
    if text == "0":
        return 0
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError("is not a duration, such as 1m30s")
    return int(sum(Decimal(number) * _UNITS[unit] for number, unit in parts))


def parse_bool(text: str) -> bool:
    """strconv.ParseBool. Raises ValueError."""
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    raise ValueError("is neither true nor false")


def parse_integer(text: str) -> int:
    """strconv.ParseInt of base 10. Raises ValueError."""
    if not _INTEGER.fullmatch(text):
        raise ValueError("is not a number, such as 300")
    return int(text)


def parse_float(text: str) -> float:
    """strconv.ParseFloat of a decimal number. Raises ValueError."""
    if not _FLOAT.fullmatch(text):
        raise ValueError("is not a number, such as 0.1")
    return float(text)


def write_json(value: Any) -> str:
    """encoding/json.Marshal of a value whose objects are in the order of the struct's fields."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{write_json(key)}:{write_json(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(write_json, value)) + "]"
    if isinstance(value, float):
        return _float(value)
    text = json.dumps(value, ensure_ascii=False)
    if isinstance(value, str):
        for character in "<>&\u2028\u2029":
            text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def without_zeros(value: dict[str, Any]) -> dict[str, Any]:
    """The members that `omitempty` keeps."""
    return {key: item for key, item in value.items() if item not in (None, "", 0, False) and item != [] and item != {}}


def _float(value: float) -> str:
    if value == int(value) and abs(value) < 1e21:
        return str(int(value))
    if 1e-6 <= abs(value) < 1e21:
        return format(Decimal(repr(value)), "f")
    return re.sub(r"e([+-])0(\d)$", r"e\1\2", repr(value))
