"""The initdata document: base64 of gzip of TOML; HOST_DATA is the digest of the TOML (Kata, CoCo initdata spec 0.1.0).

Read here with the strictness that the guest lacks: bad base64 is retried for ever there, an unknown algorithm kills the
shim, and a policy that does not parse shows as a dial time-out.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import hashlib
import re
import tomllib
import zlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

# Kubernetes allows 256 KiB for all annotations; a generated policy was seen at 75 KB plain.
_MAX_ENCODED: Final = 256 * 1024
_MAX_PLAIN: Final = 512 * 1024
# A key of more parts is no key of ours; reading one takes time that grows with the square of them.
_MANY_PARTS: Final = re.compile(rb"(?:[A-Za-z0-9_\"' \t-]{1,64}\.){8}")
_MAX_OUTSIDE: Final = 8 * 1024
_TEXTS: Final = re.compile(rb"\"\"\".*?\"\"\"|'''.*?'''|\"[^\"\n]*\"|'[^'\n]*'", re.DOTALL)
_MAX_NUMBER: Final = re.compile(rb"[0-9_]{64}")
# The agent's own limits on a policy (kata-agent 4.1).
_MAX_POLICY_LINE: Final = 64 * 1024
HOST_DATA_BYTES: Final = 32
_ALGORITHMS: Final = ("sha256", "sha384", "sha512")


class InitdataError(ValueError):
    """The document cannot be used; the message says why and holds none of its content."""


@dataclass(frozen=True, slots=True)
class Initdata:
    """A document: its raw TOML, what HOST_DATA will be (32 bytes), and its files by name."""

    toml: bytes
    host_data: bytes
    files: dict[str, str]


def read_initdata(encoded: str) -> Initdata:
    """The document in an annotation's value; the same again costs nothing."""
    return _read(encoded)


@lru_cache(maxsize=16)
def _read(encoded: str) -> Initdata:
    if len(encoded) > _MAX_ENCODED:
        raise InitdataError(f"is longer than {_MAX_ENCODED} bytes")
    try:
        compressed = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise InitdataError("is not standard base64") from None
    return parse_initdata(_decompressed(compressed))


def write_initdata(toml: bytes) -> str:
    """The annotation's value for a document; the same bytes for the same document."""
    return base64.b64encode(gzip.compress(toml, 9, mtime=0)).decode()


def parse_initdata(toml: bytes) -> Initdata:
    """The document in its raw TOML."""
    try:
        document = tomllib.loads(_bounded(toml).decode())
    except (ValueError, RecursionError):  # among them TOMLDecodeError, UnicodeDecodeError, and int() of too many digits
        raise InitdataError("is not TOML") from None
    if document.get("version") != "0.1.0":
        raise InitdataError('has a version other than "0.1.0"')
    algorithm = document.get("algorithm")
    if algorithm not in _ALGORITHMS:
        raise InitdataError(f"names no digest algorithm out of {', '.join(_ALGORITHMS)}; use sha256")
    files = document.get("data")
    if not isinstance(files, dict) or not all(isinstance(text, str) for text in files.values()):
        raise InitdataError("has no [data] table of texts")
    _check_policy(files.get("policy.rego"))
    digest = hashlib.new(algorithm, toml).digest()
    return Initdata(toml, digest[:HOST_DATA_BYTES], files)


def _bounded(toml: bytes) -> bytes:
    """The document, unless reading it would take long: what is outside texts is short in an initdata document."""
    outside = _TEXTS.sub(b'""', toml)
    if len(outside) > _MAX_OUTSIDE or _MANY_PARTS.search(outside) or _MAX_NUMBER.search(outside):
        raise InitdataError("holds more than a version, an algorithm and a [data] table of texts")
    return toml


def _decompressed(compressed: bytes) -> bytes:
    decompressor = zlib.decompressobj(wbits=31)
    try:
        plain = decompressor.decompress(compressed, _MAX_PLAIN)
    except zlib.error:
        raise InitdataError("is not gzip inside its base64") from None
    if decompressor.unused_data:
        # Other readers join what follows, and would measure another document.
        raise InitdataError("goes on after the end of its gzip stream")
    if not decompressor.eof:
        raise InitdataError(f"is cut short, or longer than {_MAX_PLAIN} bytes unpacked")
    return plain


def _check_policy(policy: str | None) -> None:
    """What can be said of Rego without its engine: the package that the agent queries, and the agent's limits."""
    if policy is None:
        return
    lines = policy.splitlines()
    if not any(line.split("#")[0].strip() == "package agent_policy" for line in lines):
        raise InitdataError("has a policy.rego without `package agent_policy`")
    if any(len(line.encode()) > _MAX_POLICY_LINE for line in lines):
        raise InitdataError(f"has a policy.rego with a line over {_MAX_POLICY_LINE} bytes, which the agent refuses")
