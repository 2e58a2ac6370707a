"""Variable names that say "this is a secret", and those that only name the place of one."""

from __future__ import annotations

import itertools
import re
from functools import lru_cache
from typing import Final

_WORDS: Final = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|[0-9]+")

SECRET_WORDS: Final = frozenset(
    [
        "password",
        "passwd",
        "passphrase",
        "pwd",
        "pass",
        "passcode",
        "secret",
        "secrets",
        "token",
        "apikey",
        "privatekey",
        "credential",
        "credentials",
        "creds",
        "accesskey",
        "secretkey",
        "authtoken",
    ]
)
# Two words that only together say so.
SECRET_PAIRS: Final = frozenset(
    {
        ("api", "key"),
        ("access", "key"),
        ("private", "key"),
        ("secret", "key"),
        ("encryption", "key"),
        ("signing", "key"),
        ("master", "key"),
        ("account", "key"),
        ("license", "key"),
        ("client", "key"),
        ("ssh", "key"),
        ("hmac", "key"),
        ("connection", "string"),
    }
)
# A name that ends so tells where a secret is, or how it is treated.
PLACE_WORDS: Final = frozenset(
    [
        "file",
        "files",
        "path",
        "paths",
        "dir",
        "directory",
        "folder",
        "mount",
        "url",
        "uri",
        "endpoint",
        "host",
        "hostname",
        "port",
        "address",
        "name",
        "names",
        "namespace",
        "id",
        "ids",
        "issuer",
        "audience",
        "aud",
        "type",
        "kind",
        "class",
        "provider",
        "store",
        "backend",
        "engine",
        "header",
        "headers",
        "enabled",
        "enable",
        "disabled",
        "required",
        "ttl",
        "timeout",
        "timeouts",
        "seconds",
        "minutes",
        "expiry",
        "expires",
        "expiration",
        "lifetime",
        "duration",
        "period",
        "interval",
        "rotation",
        "length",
        "size",
        "min",
        "max",
        "count",
        "limit",
        "limits",
        "retries",
        "algorithm",
        "alg",
        "cipher",
        "ciphers",
        "encoding",
        "format",
        "version",
        "versions",
        "policy",
        "mode",
        "role",
        "method",
        "scope",
        "scopes",
        "prefix",
        "suffix",
        "ref",
        "reference",
        "regex",
        "pattern",
    ]
)


@lru_cache(maxsize=4096)
def says_secret(name: str) -> bool:
    """Whether the variable's name says that its value is a secret."""
    words = tuple(word.lower() for word in _WORDS.findall(name[:256]))
    while words and words[-1].isdigit():
        words = words[:-1]
    if not words or words[-1] in PLACE_WORDS:
        return False
    if not SECRET_WORDS.isdisjoint(words):
        return True
    return any(pair in SECRET_PAIRS for pair in itertools.pairwise(words))
