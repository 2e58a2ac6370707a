"""The guest policy's text: a known rules text, and the data of one pod between two marker lines.

The data is strict JSON, canonical in form, one value a line. Lines stay under 1,000 columns, because kata-agent
before 4.1 refuses longer ones; a long text is in pieces, which the rules join. The text fits a TOML literal: it is
ASCII and holds no apostrophe inside the data.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final

from measured import rules

_BEGIN: Final = "measured := # data, strict JSON\n"
_END: Final = "# end of data\n"
_PIECE: Final = 600
_MAX_LINE: Final = 1000
_MAX_POLICY: Final = 512 * 1024
_VERSIONS: Final = (1,)


class PolicyError(ValueError):
    """The text is not a policy of ours; the message holds none of its content."""


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy of ours: the rules' version, the SHA-256 of their text in hex, and the data."""

    version: int
    rules_digest: str
    data: dict[str, Any]


def write_policy(data: Mapping[str, Any]) -> str:
    """The policy's text for `measured.pod.measure`'s object; equal bytes for equal objects. Raises PolicyError."""
    text = json.dumps(_in_pieces(data), indent=1, sort_keys=True, ensure_ascii=True, allow_nan=False)
    # Inside strings alone; in a TOML literal three apostrophes would end the text, and DEL is not allowed.
    text = text.replace("'", "\\u0027").replace("\x7f", "\\u007f")
    policy = f"{rules_text(data['version'])}\n{_BEGIN}{text}\n{_END}"
    if any(len(line) >= _MAX_LINE for line in policy.splitlines()):
        raise PolicyError(
            f"would have a line of {_MAX_LINE} columns, because of a variable's name or a path of that length"
        )
    return policy


def read_policy(text: str) -> Policy:
    """The policy in a text, if rules and form are ours to the byte. Raises PolicyError."""
    if len(text) > _MAX_POLICY:
        raise PolicyError(f"is longer than {_MAX_POLICY} characters")
    head, begin, rest = text.partition(f"\n{_BEGIN}")
    body, end, tail = rest.rpartition(f"\n{_END}")
    version = next((number for number in _VERSIONS if rules_text(number) == head), None)
    if version is None or not begin or not end or tail:
        raise PolicyError("is not of a known rules text")
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        raise PolicyError("holds data that is not JSON") from None
    if not isinstance(data, dict) or data.get("version") != version:
        raise PolicyError("holds data of another version than its rules")
    joined = _joined(data)
    try:
        is_ours = write_policy(joined) == text
    except (TypeError, ValueError, RecursionError):
        is_ours = False
    if not is_ours:
        raise PolicyError("holds data in another form than ours")
    return Policy(version, rules_digest(version), joined)


@cache
def rules_text(version: int) -> str:
    """The rules text of a version."""
    if version not in _VERSIONS:
        raise PolicyError("has rules of an unknown version")
    return files(rules).joinpath(f"v{version}.rego").read_text("ascii")


@cache
def rules_digest(version: int) -> str:
    """SHA-256 of the rules text, in hex."""
    return hashlib.sha256(rules_text(version).encode()).hexdigest()


def _in_pieces(value: Any) -> Any:
    """The value with each long text as `{"join": [PIECE, …]}`."""
    if isinstance(value, str):
        return value if _width(value) <= _PIECE else {"join": _pieces(value)}
    if isinstance(value, Mapping):
        return {key: _in_pieces(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_in_pieces(item) for item in value]
    return value


def _joined(value: Any) -> Any:
    if isinstance(value, dict):
        if value.keys() == {"join"} and isinstance(value["join"], list):
            return "".join(map(str, value["join"]))
        return {key: _joined(item) for key, item in value.items()}
    return [_joined(item) for item in value] if isinstance(value, list) else value


def _pieces(text: str) -> list[str]:
    pieces: list[str] = []
    piece: list[str] = []
    width = 0
    for character in text:
        size = _width(character)
        if width + size > _PIECE:
            pieces.append("".join(piece))
            piece, width = [], 0
        piece.append(character)
        width += size
    return [*pieces, "".join(piece)]


def _width(text: str) -> int:
    """Columns that the text takes at most: an apostrophe becomes an escape."""
    return len(json.dumps(text)) + 5 * (text.count("'") + text.count("\x7f"))
