"""Vault references: `PATH[#KEY][@N]` in annotations, `vault:PATH#KEY[@N]` and `${vault:PATH#KEY}` in variables."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from webhook.errors import BadReferenceError

SCHEME: Final = "vault:"
_INLINE_OPEN: Final = "${vault:"
# `~/` is our own spelling, which no other injector has.
_OWN: Final = (f"{SCHEME}~/", f"{_INLINE_OPEN}~/")
# Bank-Vaults' form that writes a secret while it reads it.
_WRITING: Final = (">>vault:", "${>>vault:")
# Bank-Vaults' prefix of ciphertexts for Vault's transit engine to decrypt.
_TRANSIT = re.compile(r"vault:v\d+:")
_IS_TRANSIT: Final = "is a transit ciphertext, which is not decrypted here; store the value in a KV secret"
_INLINE = re.compile(r"\$\{vault:([^{}]*)\}")
_MEANT = re.compile(r"[=:, ]vault:[^\s#]{1,512}#")
# A whole reference in quotes or brackets, or behind blanks: a template of YAML often leaves them there.
_WRAPPED = re.compile(r"[\s\"'`$({<\[]{1,16}vault:[^\s#]{0,512}/[^\s#]{0,512}#")
_SEGMENT = r"[A-Za-z0-9._~+ -]+"
_PATH = re.compile(rf"(?:~|{_SEGMENT})(?:/{_SEGMENT})+")
_KEY = re.compile(r"[A-Za-z0-9._/+ -]{1,256}")
_VERSION = re.compile(r"[1-9][0-9]{0,8}")
_MAX_LENGTH: Final = 1024


@dataclass(frozen=True, slots=True)
class Reference:
    """A secret, or one key of it. `path` is logical: with its mount, without `data/`."""

    path: str
    key: str | None = None
    version: int | None = None


@dataclass(frozen=True, slots=True)
class SecretPrefix:
    """What `~/` stands for: a path that ends in `/`; None with the reason where the workload has no prefix.

    `kv2_mounts` are the mounts of KV version 2, whose API has `data/` in a path and whose logical paths do not.
    """

    path: str | None
    reason: str = ""
    kv2_mounts: tuple[str, ...] = ()


def is_reference(value: str) -> bool:
    """Whether a variable's value is one whole reference. It needs a `/` and a `#`: `vault:1.15` is an image."""
    return value.startswith(SCHEME) and "/" in value and "#" in value


def holds_inline(value: str) -> bool:
    """Whether a text holds a reference inside: `${vault:` with a `/` and a `#` before the brace that closes it."""
    return any("/" in part and "#" in part for part in _inline_parts(value))


def is_meant_in(word: str) -> bool:
    """Whether a word of a command line is, or ends in, a reference: `--password=vault:PATH#KEY` was meant as one."""
    return mentions(word) or any("/" in match[0] for match in _MEANT.finditer(word))


def mentions(value: str) -> bool:
    """Whether a text is or holds a reference."""
    return is_reference(value) or holds_inline(value)


def is_incomplete(value: str) -> bool:
    """Whether a text looks like a reference whose key its author forgot: `vault:` with a `/` and no `#`.

    A transit ciphertext (`vault:v1:…`) counts, because nothing here decrypts it.
    """
    if mentions(value):
        return False
    if value.startswith(SCHEME) and ("/" in value or _TRANSIT.match(value)):
        return True
    return any("/" in part for part in _inline_parts(value))


def is_wrapped(value: str) -> bool:
    """Whether a text is a reference in quotes or brackets, or behind blanks, such as `"vault:PATH#KEY"`."""
    return _WRAPPED.match(value) is not None and not mentions(value)


def incomplete_problem(value: str) -> str:
    """What is wrong with an incomplete reference."""
    if _TRANSIT.match(value):
        return _IS_TRANSIT
    if is_wrapped(value):
        return "has a Vault reference in quotes, in brackets or behind blanks; write vault:PATH#KEY alone"
    return "looks like a Vault reference without its key; write vault:PATH#KEY"


def is_own_spelling(value: str) -> bool:
    """Whether a text refers to the workload's own prefix, `~/`, whole or inline."""
    return value.startswith(_OWN[0]) or _OWN[1] in value


def writes_secret(value: str) -> bool:
    """Whether a text is, or holds, Bank-Vaults' `>>vault:PATH#KEY`, which only Bank-Vaults resolves."""
    return value.startswith(_WRITING[0]) or _WRITING[1] in value


def _inline_parts(value: str) -> Iterator[str]:
    """What follows each `${vault:`, up to the brace that closes it or to the end of the text; in linear time."""
    start = value.find(_INLINE_OPEN)
    while start >= 0:
        end = value.find("}", start)
        yield value[start + len(_INLINE_OPEN) : end if end >= 0 else None]
        start = value.find(_INLINE_OPEN, end) if end >= 0 else -1


def parse(text: str, secret_prefix: SecretPrefix, *, key: bool | None = None) -> Reference:
    """The reference in `PATH[#KEY][@N]`; `#N` after the key is accepted as Bank-Vaults' spelling of the version.

    `key` True demands a key, False refuses one. Raises BadReferenceError.
    """
    if len(text) > _MAX_LENGTH:
        raise BadReferenceError(f"is longer than {_MAX_LENGTH} characters")
    path, version = text.strip(), None
    path, _, name = path.partition("#")
    target = name if name else path
    if "@" in target:
        target, _, version = target.rpartition("@")
    elif "#" in name:
        target, _, version = name.partition("#")
    if name:
        name = target
    else:
        path = target
    if version is not None and not _VERSION.fullmatch(version):
        raise BadReferenceError("ends in a version that is not a whole number above 0; write PATH#KEY@2")
    if key is True and not name:
        raise BadReferenceError("has no key; write PATH#KEY")
    if key is False and name:
        raise BadReferenceError("has a key, but each key of the secret becomes a variable; write the path alone")
    if name and not _KEY.fullmatch(name):
        raise BadReferenceError("has a key with other characters than letters, digits, spaces and . _ / + -")
    logical = _without_data(path, secret_prefix)
    if logical != path:
        rest = (f"#{name}" if name else "") + (f"@{version}" if version else "")
        raise BadReferenceError(
            "has a path of the KV-2 API, as Bank-Vaults and the Vault Agent write it; leave out data/: write"
            f" {logical}{rest}"
        )
    return Reference(_path(path, secret_prefix), name or None, int(version) if version else None)


def parse_variable(value: str, secret_prefix: SecretPrefix) -> Reference:
    """The reference in a variable's `vault:PATH#KEY[@N]`."""
    if _TRANSIT.match(value):
        raise BadReferenceError(_IS_TRANSIT)
    return parse(value.removeprefix(SCHEME), secret_prefix, key=True)


def expand_inline(value: str, secret_prefix: SecretPrefix) -> str:
    """The text with every `${vault:PATH#KEY}` checked and its `~/` replaced.

    Beside a reference, every other `${vault:` is refused: the sidecar would read it as one too.
    """

    def expanded(match: re.Match[str]) -> str:
        reference = parse(match[1], secret_prefix, key=True)
        version = "" if reference.version is None else f"@{reference.version}"
        return f"{_INLINE_OPEN}{reference.path}#{reference.key}{version}}}"

    result, count = _INLINE.subn(expanded, value)
    if count != value.count(_INLINE_OPEN):
        raise BadReferenceError("holds an inline reference that is malformed or not closed; write ${vault:PATH#KEY}")
    return result


def inline_paths(value: str) -> list[str]:
    """The paths of the references inside a text."""
    return [match[1].partition("#")[0] for match in _INLINE.finditer(value)]


def literal_parts(value: str) -> str:
    """The text without its inline references: its author's literal parts."""
    return _INLINE.sub("", value)


def _without_data(path: str, secret_prefix: SecretPrefix) -> str:
    """The logical path for one as KV-2's API has it, such as `secret/data/db`; any other path as it is."""
    if _PATH.fullmatch(path):
        for mount in secret_prefix.kv2_mounts:
            if path.startswith(f"{mount}/data/"):
                return f"{mount}/{path.removeprefix(f'{mount}/data/')}"
    return path


def _path(path: str, secret_prefix: SecretPrefix) -> str:
    if not _PATH.fullmatch(path):
        raise BadReferenceError(
            "has no usable path; write MOUNT/PATH#KEY, such as secret/shop/db#password", may_be_text=True
        )
    if path.startswith("~/"):
        if secret_prefix.path is None:
            raise BadReferenceError(f"starts with ~/, but {secret_prefix.reason}")
        path = secret_prefix.path + path[2:]
    if any(segment.strip(". ") == "" for segment in path.split("/")):
        raise BadReferenceError("has a path with an empty or dotted part; write MOUNT/PATH, such as secret/shop/db")
    return path
