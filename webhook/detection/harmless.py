"""Values that are no secret even under a name that says so: references, switches, numbers, places, placeholders."""

from __future__ import annotations

import re
from typing import Final

# Ours and Bank-Vaults' `>>vault:`.
REFERENCES: Final = ("vault:", ">>vault:")

# `${vault:…}`, Kubernetes' `$(NAME)`, a shell's `${NAME}`: what is there after expansion comes from elsewhere.
_FROM_ELSEWHERE: Final = "<>"
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
    | <[^<>]{0,255}> | \{\{[^{}]{0,255}\}\} | %[A-Za-z_]{1,64}% | \*{2,64} | [xX]{3,64} | \.{3} | (?i:redacted)
    """,
    re.VERBOSE,
)
_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{1,30}://[^\s?]*")


def without_expansions(value: str) -> str:
    """The literal part of a value: each expansion gives way to a placeholder, which no format takes for a secret."""
    return _EXPANSION.sub(_FROM_ELSEWHERE, value)


def is_harmless(value: str) -> bool:
    """Whether no secret looks like this. A URL's password is for the formats to find; here it is a place."""
    text = value.strip().strip("\"'")
    return _ORDINARY.fullmatch(text) is not None or _URL.fullmatch(text) is not None or not any(map(str.isalnum, text))
