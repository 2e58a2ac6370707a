"""How likely a variable holds a secret, by its name alone."""

from __future__ import annotations

import re
from enum import IntEnum
from typing import Final

# Of a longer name only the end is read: it holds the words that decide.
MAX_NAME_LENGTH: Final = 256

# DB_PASSWORD, dbPassword, db-password.2, DBPassword: the parts between separators, humps and digits.
_WORDS: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")


def _word_set(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Anywhere in a name that does not end in a location or setting: PASSWORD_POSTGRES, DB_PASSWORD_1.
_PASSWORDS: Final = _word_set("password passwords passwd passphrase pwd")
# At the end of a name only: TOKEN_BUCKETS, SECRET_SANTA and PASS_THROUGH are something else.
_SECRET_ENDINGS: Final = _word_set(
    "secret secrets token credential credentials creds pass passcode apikey accesskey privatekey secretkey authkey"
    " psk pw dbpw"
)
# The same without a separator before them: PGPASSWORD, CLIENTSECRET, SSHPASS.
_SECRET_SUFFIXES: Final = tuple(_PASSWORDS - {"pwd"} | _SECRET_ENDINGS - {"pass", "creds", "pw", "psk"} | {"sshpass"})
# Two words that mean a secret only together, at the end of a name.
_SECRET_PAIRS: Final = frozenset(
    {(kind, "key") for kind in _word_set(
        "access account aes api app auth client decryption deploy encryption fernet hmac jwt license master private"
        " secret shared signing ssh storage webhook"
    )}
    | {(kind, "keys") for kind in _word_set("api private secret")}
    | {(kind, "tokens") for kind in _word_set("api access auth bearer refresh service")}
    | {(kind, "auth") for kind in _word_set("basic redis rediscli")}
)  # fmt: skip
# Qualifiers after those words change nothing: SECRET_KEY_BASE, API_TOKEN_OLD, PASSWORD_HASH.
_QUALIFIERS: Final = _word_set(
    "value plain plaintext text raw base base64 b64 hash salt old new current previous next primary secondary prod"
    " production staging stage dev test default admin root live ro rw string"
)
# Words that make only a random value suspicious: MAPS_KEY, WEBHOOK_SIGNATURE.
_HINTS: Final = _SECRET_ENDINGS | _word_set(
    "key keys auth seed salt jwt hmac cookie signature webhook pin otp pat authorization"
)

# A name with one of these endings is of a secret's location or treatment, or of something public.
_PUBLIC_ENDINGS: Final = (
    _word_set(
        "addr address backend bucket column command cmd dir directory dirs domain endpoint endpoints engine env"
        " field file filename files folder from host hostname hosts issuer location mount name names namespace path"
        " paths port prefix provider proxy ref reference region script server service source store suffix table"
        " target uri uris url urls vault"
    )
    | _word_set(
        "age alg algorithm algorithms attempts attribute aud audience audiences authentication bytes cache charset"
        " chars check cipher ciphers class cost count days digits disabled duration enable enabled encoder encoding"
        " entropy expiration expire expires expiry factor format grant hasher hashers header headers history hours"
        " iat interval kind leeway length lifespan lifetime limit limits login max method methods min minutes mode"
        " ms optional param parameter pattern period policy prompt rate refresh regex required requirements reset"
        " retries role rotation rounds rules scope scopes seconds size skew strategy strength template threshold"
        " timeout timeouts ttl type types usage user username validation validator validators validity version"
        " versions window"
    )
    | _word_set(
        "arn build cert certificate checksum commit digest etag fingerprint guid hash id identifier ids image kid"
        " md5 pub rev revision sha span tag thumbprint trace uid uuid"
    )
)
# The value is the name of a Kubernetes Secret, not its content.
_SECRET_OBJECTS: Final = frozenset(
    (kind, word) for kind in _word_set("pull tls cert certificate ca") for word in ("secret", "secrets")
)
# The same where another word stands before `secret`, or where a key of such a Secret is named: DB_PASSWORD_SECRET,
# PASSWORD_SECRET_KEY. The value decides: a Secret's name or key is plain words.
_HELD_IN_OBJECTS: Final = _PASSWORDS | _word_set("credential credentials creds auth registry existing")
# A site key of a captcha stands in the page.
_PUBLIC_KEYS: Final = frozenset({("site", "key"), ("sitekey",)})
# Switches, and variables that bundlers publish in a page: ENABLE_TOKEN_AUTH, NEXT_PUBLIC_API_KEY.
_SWITCHES: Final = _word_set("enable enabled disable disabled is has no skip allow require use with show hide")
_PUBLISHED: Final = _word_set("public publishable")


class NameClass(IntEnum):
    """How likely the name makes it that the value is a secret; ordered."""

    PUBLIC = 0
    """The name is of a location, a setting or something public: only a known token format makes the value a secret."""
    NEUTRAL = 1
    HINT = 2
    """The value may be a secret: a shorter random value is enough."""
    OBJECT = 3
    """The value is a secret, unless it is the name of a Kubernetes Secret or of a key in one."""
    SECRET = 4
    """The value is a secret, unless it is plainly something else."""


def classify_name(name: str) -> NameClass:
    """The class of a variable's name."""
    words = [word.lower() for word in _WORDS.findall(name[-MAX_NAME_LENGTH:])]
    while words and words[-1].isdigit():
        words.pop()
    if not words or words[0] in _SWITCHES or not _PUBLISHED.isdisjoint(words):
        return NameClass.PUBLIC if words else NameClass.NEUTRAL
    if words[-1] in _PUBLIC_ENDINGS and not _ends_in_secret(_without_qualifiers(words)):
        return NameClass.PUBLIC
    if tuple(words[-2:]) in _SECRET_OBJECTS or tuple(words[-2:]) in _PUBLIC_KEYS or tuple(words[-1:]) in _PUBLIC_KEYS:
        return NameClass.PUBLIC
    if _names_an_object(words):
        return NameClass.OBJECT
    if not _PASSWORDS.isdisjoint(words) or _ends_in_secret(words) or _ends_in_secret(_without_qualifiers(words)):
        return NameClass.SECRET
    return NameClass.NEUTRAL if _HINTS.isdisjoint(words) else NameClass.HINT


def _names_an_object(words: list[str]) -> bool:
    if words[-1] == "key":
        return any(word in _PASSWORDS for word in words[-3:-1])
    return words[-1] in ("secret", "secrets") and any(word in _HELD_IN_OBJECTS for word in words[-2:-1])


def _without_qualifiers(words: list[str]) -> list[str]:
    end = len(words)
    while end and (words[end - 1] in _QUALIFIERS or words[end - 1].isdigit()):
        end -= 1
    return words[:end]


def _ends_in_secret(words: list[str]) -> bool:
    if not words:
        return False
    last = words[-1]
    return (
        last in _PASSWORDS
        or last in _SECRET_ENDINGS
        or last.endswith(_SECRET_SUFFIXES)
        or tuple(words[-2:]) in _SECRET_PAIRS
    )
