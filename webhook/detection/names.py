"""What a variable's name says of its value: a secret, perhaps one, nothing, or only where a secret is."""

from __future__ import annotations

import re
from enum import IntEnum
from typing import Final

# Only the end of a longer name is looked at: it holds the words that decide.
LONGEST: Final = 256

# DB_PASSWORD, dbPassword, db-password.2, DBPassword: the parts between separators, humps and digits.
_WORDS: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Wherever it stands, the value is one, unless the name ends in a place or a setting: PASSWORD_POSTGRES, DB_PASSWORD_1.
_PASSWORDS: Final = _set("password passwords passwd passphrase pwd")
# At the end only: TOKEN_BUCKETS, SECRET_SANTA and PASS_THROUGH are something else.
_ENDINGS: Final = _set(
    "secret secrets token credential credentials creds pass passcode apikey accesskey privatekey secretkey authkey"
)
# The same, written without a separator: PGPASSWORD, CLIENTSECRET, SSHPASS.
_GLUED: Final = tuple(_PASSWORDS - {"pwd"} | _ENDINGS - {"pass", "creds"} | {"sshpass"})
# Two words that say it only together, at the end.
_PAIRS: Final = frozenset(
    {(kind, "key") for kind in _set(
        "access account aes api app auth client decryption deploy encryption fernet hmac jwt license master private"
        " secret shared signing ssh storage webhook"
    )}
    | {(kind, "keys") for kind in _set("api private secret")}
    | {(kind, "tokens") for kind in _set("api access auth bearer refresh service")}
    | {(kind, "auth") for kind in _set("basic redis rediscli")}
    | {(kind, "pw") for kind in _set("db user admin")}
)  # fmt: skip
# Between the word and the end of the name these change nothing: SECRET_KEY_BASE, API_TOKEN_OLD, PASSWORD_HASH.
_QUALIFIERS: Final = _set(
    "value plain plaintext text raw base base64 b64 hash salt old new current previous next primary secondary prod"
    " production staging stage dev test default admin root live ro rw string"
)
# Words that make a random value suspicious, no more: MAPS_KEY, WEBHOOK_SIGNATURE.
_HINTS: Final = _ENDINGS | _set("key keys auth seed salt jwt hmac cookie signature webhook pin otp pat authorization")

# A name that ends so tells where a secret is, or how it is treated, or names something public.
_PLACES: Final = (
    _set(
        "addr address backend bucket column command cmd dir directory dirs domain endpoint endpoints engine env"
        " field file filename files folder from host hostname hosts issuer location mount name names namespace path"
        " paths port prefix provider proxy ref reference region script server service source store suffix table"
        " target uri uris url urls vault"
    )
    | _set(
        "age alg algorithm algorithms attempts attribute aud audience audiences authentication bytes cache charset"
        " chars check cipher ciphers class cost count days digits disabled duration enable enabled encoder encoding"
        " entropy expiration expire expires expiry factor format grant hasher hashers header headers history hours"
        " iat interval kind leeway length lifespan lifetime limit limits login max method methods min minutes mode"
        " ms optional param parameter pattern period policy prompt rate refresh regex required requirements reset"
        " retries role rotation rounds rules scope scopes seconds size skew strategy strength template threshold"
        " timeout timeouts ttl type types usage user username validation validator validators validity version"
        " versions window"
    )
    | _set(
        "arn build cert certificate checksum commit digest etag fingerprint guid hash id identifier ids image kid"
        " md5 pub rev revision sha span tag thumbprint trace uid uuid"
    )
)
# Names of Kubernetes Secrets, not their content.
_OBJECTS: Final = frozenset(
    (kind, word) for kind in _set("pull tls cert certificate ca") for word in ("secret", "secrets")
)
# A switch, and what bundlers publish in a page: ENABLE_TOKEN_AUTH, NEXT_PUBLIC_API_KEY.
_SWITCHES: Final = _set("enable enabled disable disabled is has no skip allow require use with show hide")
_PUBLISHED: Final = _set("public publishable")


class Verdict(IntEnum):
    """What to expect of the value, from nothing to a secret."""

    PLACE = 0
    """It names a place, a setting or something public: only a known token format makes it a secret."""
    NEUTRAL = 1
    HINT = 2
    """It may be a secret: a random value need not be as long."""
    SECRET = 3
    """It is a secret, unless the value is plainly something else."""


def judge(name: str) -> Verdict:
    """What the name says."""
    words = [word.lower() for word in _WORDS.findall(name[-LONGEST:])]
    while words and words[-1].isdigit():
        words.pop()
    if not words or words[0] in _SWITCHES or not _PUBLISHED.isdisjoint(words):
        return Verdict.PLACE if words else Verdict.NEUTRAL
    if words[-1] in _PLACES and not _ends_in_secret(_without_qualifiers(words)):
        return Verdict.PLACE
    if tuple(words[-2:]) in _OBJECTS:
        return Verdict.PLACE
    if not _PASSWORDS.isdisjoint(words) or _ends_in_secret(words) or _ends_in_secret(_without_qualifiers(words)):
        return Verdict.SECRET
    return Verdict.NEUTRAL if _HINTS.isdisjoint(words) else Verdict.HINT


def _without_qualifiers(words: list[str]) -> list[str]:
    end = len(words)
    while end and (words[end - 1] in _QUALIFIERS or words[end - 1].isdigit()):
        end -= 1
    return words[:end]


def _ends_in_secret(words: list[str]) -> bool:
    if not words:
        return False
    last = words[-1]
    return last in _PASSWORDS or last in _ENDINGS or last.endswith(_GLUED) or tuple(words[-2:]) in _PAIRS
