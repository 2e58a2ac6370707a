"""Detects values that are too random to be anything but a key: one word of hex or base64 of high Shannon entropy.

Most random-looking values are not secrets: digests, commit ids, UUIDs, object ids, generated names. Excluding those,
and texts of several words (lists, JSON, options), matters more than the threshold.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections import Counter
from typing import Final

# detect-secrets' and truffleHog's limits, in bits per character. 32 random characters cannot reach 4.5 reliably.
HEX_BITS: Final = 3.0
BASE64_BITS: Final = 4.5
_SHORT_BASE64_BITS: Final = 0.8  # of log2(length), the most that so many characters can have
# Shorter words are names as often as keys, unless the variable's name hints at a secret.
_HEX_LENGTH: Final = 20
_BASE64_LENGTH: Final = 32
_HINTED_LENGTH: Final = 16
_LONGEST: Final = 512
# Public more often than not: SHA-1 and Git, SHA-224, SHA-256, SHA-384, SHA-512, MongoDB's ObjectId.
_DIGEST_LENGTHS: Final = frozenset({24, 40, 56, 64, 96, 128})
# The word, alone or after `base64:`, `key=` and similar prefixes.
_WINDOW: Final = re.compile(r"(?:([A-Za-z][A-Za-z0-9_.-]{0,31})[:=])?([A-Za-z0-9+/_-]{16,512}+)={0,2}")
_HEX: Final = re.compile(r"[0-9a-f]+|[0-9A-F]+")
_DIGEST_PREFIX: Final = re.compile(r"(?i:sha-?[0-9]|md5|blake|@)")
_UUID: Final = re.compile(
    r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{12}4[0-9a-f]{3}[89ab][0-9a-f]{15}", re.IGNORECASE
)
_SEPARATORS: Final = re.compile(r"[-_/+]")
_SAME_CLASS: Final = re.compile(r"[a-z]+|[A-Z]+|[0-9]+")
_CHANGES: Final = 0.4
_ONE_CASE_CHANGES: Final = 0.28
# Words, and short words as in GetIdByUserId, each with the share of a text that random text seldom reaches.
_SPELLED: Final = ((re.compile(r"[A-Z]?[a-z]{3,}"), 0.5), (re.compile(r"[A-Z][a-z]+|[a-z]{2,}"), 0.8))


def looks_random(value: str, hinted: bool = False) -> bool:
    """Whether the whole value is one random word. `hinted`: the name makes a secret likely."""
    if not _HINTED_LENGTH <= len(value) <= _LONGEST + 36:
        return False
    window = _WINDOW.fullmatch(value.strip().strip("\"'"))
    if window is None:
        return False
    prefix, word = window.groups()
    if _DIGEST_PREFIX.match(prefix or word) is not None or _UUID.fullmatch(word) is not None:
        return False
    if _HEX.fullmatch(word) is not None:
        return _is_random_hex(word, hinted)
    return _is_random_base64(word, hinted)


def shannon_entropy(word: str) -> float:
    """Shannon entropy, in bits per character."""
    size = len(word)
    return -sum(count / size * math.log2(count / size) for count in Counter(word).values())


def _is_random_hex(word: str, hinted: bool) -> bool:
    if word.isdigit() or word.isalpha() or (len(word) in _DIGEST_LENGTHS and not hinted):
        return False
    return len(word) >= (_HINTED_LENGTH if hinted else _HEX_LENGTH) and shannon_entropy(word) >= HEX_BITS


def _is_random_base64(word: str, hinted: bool) -> bool:
    if len(word) < (_HINTED_LENGTH if hinted else _BASE64_LENGTH):
        return False
    # Names have short parts between separators; in random text separators are rare.
    part = max(_SEPARATORS.split(word), key=len)
    if len(part) < 12 or part.isdigit() or (part.isalpha() and (part.islower() or part.isupper())):
        return False
    # Random letters and digits change class at every second character or so; words and humps do not.
    one_case = part.islower() or part.isupper()
    if len(_SAME_CLASS.findall(part)) < len(part) * (_ONE_CASE_CHANGES if one_case else _CHANGES):
        return False
    if not one_case and any(sum(map(len, words.findall(part))) >= len(part) * share for words, share in _SPELLED):
        return False
    limit = min(BASE64_BITS, _SHORT_BASE64_BITS * math.log2(len(word)))
    return shannon_entropy(word) >= limit and not _is_text(word)


def _is_text(word: str) -> bool:
    """Whether the word is base64 of plain text, such as a file, which is not random."""
    try:
        plain = base64.b64decode(word + "=" * (-len(word) % 4), altchars=b"-_" if "-" in word or "_" in word else None)
    except (binascii.Error, ValueError):
        return False
    printable = sum(0x20 <= byte < 0x7F or byte in b"\n\r\t" for byte in plain)
    return printable >= len(plain) * 0.9
