"""The initdata document: base64 of gzip of TOML; HOST_DATA is the digest of the TOML (Kata, CoCo initdata spec 0.1.0).

The reader is strict where the guest is not: there bad base64 is retried for ever, an unknown algorithm kills the shim,
and a policy that does not parse shows as a dial time-out.
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
# The member OS of gzip's header (RFC 1952, 2.3), which Python 3.11 sets to Unix and 3.13 to unknown.
_SYSTEM_AT: Final = 9
_UNIX: Final = b"\x03"
# No key of the format has more parts; the time to read one grows with the square of them.
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
    """A document: its raw TOML, the HOST_DATA that it makes (32 bytes), and its files by name."""

    toml: bytes
    host_data: bytes
    files: dict[str, str]


def read_initdata(encoded: str) -> Initdata:
    """The document in an annotation's value. Cached. Raises InitdataError."""
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
    """The annotation's value for a document; the same bytes for the same document, by every Python with one zlib."""
    compressed = gzip.compress(toml, 9, mtime=0)
    return base64.b64encode(compressed[:_SYSTEM_AT] + _UNIX + compressed[_SYSTEM_AT + 1 :]).decode()


def parse_initdata(toml: bytes) -> Initdata:
    """The document in its raw TOML. Raises InitdataError."""
    try:
        document = tomllib.loads(_bounded(toml).decode())
    except (ValueError, RecursionError):  # among them TOMLDecodeError, UnicodeDecodeError, and int() of too many digits
        raise InitdataError("is not TOML") from None
    if document.get("version") != "0.1.0":
        raise InitdataError('has a version other than "0.1.0"')
    algorithm = document.get("algorithm")
    if algorithm not in _ALGORITHMS:
        raise InitdataError(f"has an algorithm other than {', '.join(_ALGORITHMS)}; use sha256")
    files = document.get("data")
    if not isinstance(files, dict) or not all(isinstance(text, str) for text in files.values()):
        raise InitdataError("has no [data] table of texts")
    _check_policy(files.get("policy.rego"))
    digest = hashlib.new(algorithm, toml).digest()
    return Initdata(toml, digest[:HOST_DATA_BYTES], files)


def _bounded(toml: bytes) -> bytes:
    """The document, unless parsing it could take long: outside its texts an initdata document is short."""
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
        # Other readers append the data that follows, and would measure another document.
        raise InitdataError("has data after the end of its gzip stream")
    if not decompressor.eof:
        raise InitdataError(f"is truncated, or longer than {_MAX_PLAIN} bytes unpacked")
    return plain


def _check_policy(policy: str | None) -> None:
    """The checks of Rego that need no engine: the package that the agent queries, and the agent's limits."""
    if policy is None:
        return
    lines = policy.splitlines()
    if not any(line.split("#")[0].strip() == "package agent_policy" for line in lines):
        raise InitdataError("has a policy.rego without `package agent_policy`")
    if any(len(line.encode()) > _MAX_POLICY_LINE for line in lines):
        raise InitdataError(f"has a policy.rego with a line over {_MAX_POLICY_LINE} bytes, which the agent refuses")
