"""`WWW-Authenticate`: how a registry wants its callers to prove themselves (RFC 9110, section 11)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

_TOKEN: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PARAMETER: Final = re.compile(rf'\s*({_TOKEN})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|({_TOKEN}))\s*(?:,|$)')
_SCHEME: Final = re.compile(rf"\s*({_TOKEN})(?:\s+|$)")
_LONGEST: Final = 4096


@dataclass(frozen=True, slots=True)
class Challenge:
    """One scheme, in lower case, with its parameters by name in lower case."""

    scheme: str
    parameters: Mapping[str, str]


def read_challenges(headers: Iterable[str]) -> list[Challenge]:
    """All challenges of an answer, in order. Text that is none ends its header."""
    return [challenge for header in headers if len(header) <= _LONGEST for challenge in _read(header)]


def _read(header: str) -> list[Challenge]:
    found = []
    at = 0
    while (scheme := _SCHEME.match(header, at)) is not None:
        at = scheme.end()
        parameters: dict[str, str] = {}
        while (parameter := _PARAMETER.match(header, at)) is not None:
            at = parameter.end()
            name, quoted, plain = parameter.groups()
            parameters.setdefault(name.lower(), plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted))
        found.append(Challenge(scheme[1].lower(), parameters))
    return found
