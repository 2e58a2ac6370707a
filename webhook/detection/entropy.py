"""Values too random to be anything but a key: one long word of hex or base64, of high Shannon entropy."""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import Final

# detect-secrets' and truffleHog's limits: 3.0 bits a character for hex, 4.5 for base64.
HEX_BITS: Final = 3.0
BASE64_BITS: Final = 4.5
_HEX: Final = re.compile(r"[0-9a-fA-F]{32,512}")
_BASE64: Final = re.compile(r"[A-Za-z0-9+/_-]{32,512}={0,2}")
# Lengths of digests and commit ids in hex, which are public more often than not: SHA-1, SHA-256, SHA-384, SHA-512.
_DIGEST_LENGTHS: Final = frozenset({40, 64, 96, 128})
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_WORDS: Final = re.compile(r"[A-Z]?[a-z]{3,}")


def looks_random(value: str) -> bool:
    """Whether the whole value is one random word. Digests, UUIDs and words strung together are not."""
    if len(value) < 32 or len(value) > 514:
        return False
    if _HEX.fullmatch(value):
        return len(value) not in _DIGEST_LENGTHS and bits(value.lower()) >= HEX_BITS
    if not _BASE64.fullmatch(value) or _UUID.fullmatch(value):
        return False
    if not any(character.isdigit() for character in value) or value.isupper() or value.islower():
        return False
    spelled = sum(len(word) for word in _WORDS.findall(value))
    return spelled * 2 < len(value) and bits(value) >= BASE64_BITS


def bits(value: str) -> float:
    """Shannon entropy, in bits a character."""
    size = len(value)
    return -sum(count / size * math.log2(count / size) for count in Counter(value).values())
