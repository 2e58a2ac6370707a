"""The three detectors in turn, cheapest first, with the operator's allow-lists."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from fnmatch import translate
from functools import lru_cache
from typing import Final, Literal

from webhook.detection.entropy import looks_random
from webhook.detection.formats import format_of
from webhook.detection.names import says_secret

# No secret is longer; what is, is a document, and its head tells enough in bounded time.
_LOOKED_AT: Final = 16 * 1024
_HARMLESS: Final = re.compile(
    r"""
      (?i:true|false|yes|no|on|off|none|null|nil|enabled|disabled|default|auto|required|optional|always|never)
    | [+-]?[0-9]{1,4}(?:\.[0-9]+)?(?:[a-zA-Z%]{1,3})?  # small numbers, durations, sizes
    | \.{0,2}(?:/[\w.@+-]+)+/?                         # paths
    | (?:\$\$?[({][^)}]*[)}])+                         # expansions
    | <[^<>]*>|\*+|x+|X+|\.{3}                         # placeholders
    """,
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Allow:
    """Allow-lists: names as case-insensitive globs, values by SHA-256 (hex), detectors by id."""

    names: tuple[str, ...] = ()
    values_sha256: tuple[str, ...] = ()
    detectors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Finding:
    """What was recognised, by which detector: `name`, `entropy`, or a format's id."""

    kind: Literal["name", "value", "entropy"]
    detector: str


_BY_NAME: Final = Finding("name", "name")
_BY_ENTROPY: Final = Finding("entropy", "entropy")


class Detector:
    """Finds plaintext secrets. Keeps no value; verdicts on names are remembered."""

    def __init__(self, allow: Allow = Allow()) -> None:
        self._off = frozenset(allow.detectors)
        self._values = frozenset(digest.lower() for digest in allow.values_sha256)
        globs = "|".join(translate(glob.lower()) for glob in allow.names)
        self._allowed_names = re.compile(globs) if globs else None
        self._suspicious = lru_cache(maxsize=4096)(self._is_suspicious)

    def find(self, name: str, value: str) -> Finding | None:
        """What makes the variable look like a secret in plain text; None when nothing does."""
        if not value or value.startswith("vault:"):
            return None
        suspicious = self._suspicious(name)
        if suspicious is None:
            return None
        value = value[:_LOOKED_AT].strip()
        found = self._judge(suspicious, value)
        if (
            found is not None
            and self._values
            and hashlib.sha256(value.encode(errors="replace")).hexdigest() in self._values
        ):
            return None
        return found

    def _is_suspicious(self, name: str) -> bool | None:
        """None for an allowed name, else whether the name alone says "secret"."""
        if self._allowed_names is not None and self._allowed_names.match(name.lower()):
            return None
        return "name" not in self._off and says_secret(name)

    def _judge(self, suspicious: bool, value: str) -> Finding | None:
        if suspicious and not _is_harmless(value):
            return _BY_NAME
        if len(value) >= 16 or "://" in value:
            found = format_of(value, self._off)
            if found is not None:
                return Finding("value", found)
        if "entropy" not in self._off and looks_random(value):
            return _BY_ENTROPY
        return None


def _is_harmless(value: str) -> bool:
    """Whether no secret looks like this: a switch, a number, a path, a URL without a password, a reference."""
    if not value or _HARMLESS.fullmatch(value) is not None:
        return True
    if "${vault:" in value:
        return True
    return "://" in value and format_of(value, frozenset()) is None and not any(mark in value for mark in " ?=")
