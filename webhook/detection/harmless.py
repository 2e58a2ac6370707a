"""Values that are not secrets even in a variable named so: references, switches, numbers, paths, placeholders."""

from __future__ import annotations

import re
from typing import Final

# References of Morphisms, and Bank-Vaults' `>>vault:`.
_SCHEMES: Final = ("vault:", ">>vault:")

# `${vault:…}`, Kubernetes' `$(NAME)`, a shell's `${NAME}`: the expanded text comes from elsewhere.
_PLACEHOLDER: Final = "<>"
_EXPANSION: Final = re.compile(r"\$\{[^{}]{1,1024}\}|\$\([A-Za-z_.-][A-Za-z0-9_.-]{0,255}\)")
_ORDINARY: Final = re.compile(
    r"""
      (?i:true|false|yes|no|on|off|none|null|nil|undefined|enabled?|disabled?|default|auto|required|optional|always|never)
    | [+-]?[0-9]{1,20}(?:\.[0-9]{1,10})?(?:[kmgtpeKMGTPE]i?[bB]?|%|B)?   # numbers, sizes
    | (?:[0-9]{1,10}(?:\.[0-9]{1,10})?(?:ns|us|µs|ms|s|m|h|d)){1,4}   # durations
    | P[0-9T][0-9DTHMSWY.]{1,24}                                   # ISO 8601 durations
    | (?:~|\.{0,2})(?:/[\w.@-]{1,255})+/?                          # paths
    | [\w.-]{1,255}(?:/[\w.-]{1,255}){0,16}\.(?:ya?ml|json|toml|ini|conf|cfg|pem|key|crt|p12|jks|txt|env|sock)
    | localhost(?::[0-9]{1,5})?                                    # hosts
    | (?:[a-z0-9_-]{1,63}\.){1,8}(?:svc|local|internal|lan|com|net|org|io|dev|cloud|app)\.?(?::[0-9]{1,5})?
    | [a-z0-9-]{1,63}(?:\.[a-z0-9-]{1,63}){1,8}:[0-9]{2,5}
    | [0-9]{1,3}(?:\.[0-9]{1,3}){3}(?:[:/][0-9]{1,5})?             # IPv4
    | arn:aws[a-z-]{0,8}:\S{1,512} | projects/\S{1,512}            # names of secrets kept elsewhere
    | <[^<>]{0,255}> | \{\{[^{}]{0,255}\}\} | %[A-Za-z_]{1,64}% | \*{2,64} | [xX]{3,64} | \.{3}
    | (?i:redacted|change[_-]?me|replace[_-]?me|to-?do|tbd|fixme|placeholder|dummy)       # to be replaced
    | (?i:(?:your|insert|enter|replace)[_ -][a-z _-]{1,60})
    """,
    re.VERBOSE,
)
_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{1,30}://[^\s?]*")


def is_reference(value: str) -> bool:
    """Whether the value names a secret: by a path and a key. `vault:hunter2` has neither, and is plain text."""
    return value.startswith(_SCHEMES) and "/" in value and "#" in value


def without_scheme(value: str) -> str:
    """The value without the scheme that makes it look like a reference."""
    return value.partition(":")[2] if value.startswith(_SCHEMES) else value


_OBJECT_NAME: Final = re.compile(r"[a-z]{2,}[0-9]{0,2}(?:[-._][a-z]+[0-9]{0,2}){0,8}")


def is_object_name(value: str) -> bool:
    """Whether a Kubernetes Secret, or a key in one, may be called so: plain words of lower-case letters."""
    return len(value) <= 63 and _OBJECT_NAME.fullmatch(value.strip()) is not None


def without_expansions(value: str) -> str:
    """The value with each expansion replaced by a placeholder, which no format matches."""
    return _EXPANSION.sub(_PLACEHOLDER, value)


def is_harmless(value: str) -> bool:
    """Whether no secret has this form. A URL is harmless here; the formats find a password inside it."""
    text = value.strip().strip("\"'")
    return _ORDINARY.fullmatch(text) is not None or _URL.fullmatch(text) is not None or not any(map(str.isalnum, text))
