"""The GHCB certificate table (AMD 56421 "GHCB", SNP Extended Guest Request): what a host hands to its guest.

configfs-tsm's `auxblob` and the buffer of SNP_GET_EXT_REPORT hold one. Everything in it is hostile.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple

from attestation.errors import FormatError

MAX_TABLE_SIZE = 0x4000  # four pages, the most the kernel hands out
MAX_ENTRIES = 16
_ENTRY = struct.Struct("<16sII")

# GUID -> kind. CRL: virtee/sev's number; EXTRA_PLATFORM_INFO: google/go-sev-guest's.
KINDS: dict[str, str] = {
    "63da758d-e664-4564-adc5-f4b93be8accd": "VCEK",
    "a8074bc2-a25a-483e-aae6-39c045a0b8a1": "VLEK",
    "4ab7b379-bbac-4fe4-a02f-05aef327c782": "ASK",
    "c0b406a4-a803-4952-9743-3fb6014cd0ae": "ARK",
    "92f81bc3-5811-4d3d-97ff-d19f88dc67ea": "CRL",
    "ecae0c0f-9502-43b1-afa2-0ae2e0d565b6": "EXTRA_PLATFORM_INFO",
}


class TableEntry(NamedTuple):
    """One blob: `kind` is a name of KINDS, or the GUID as text when it is unknown; `data` is DER or PEM, unparsed."""

    kind: str
    data: bytes


def parse_certificate_table(raw: bytes) -> tuple[TableEntry, ...]:
    """The entries in order; none for an empty buffer.

    Raises FormatError for a table that is too large, has too many entries, no end, or an entry outside of it.
    """
    if not raw:
        return ()
    if len(raw) > MAX_TABLE_SIZE:
        raise FormatError(f"certificate table has {len(raw)} bytes, required at most {MAX_TABLE_SIZE}")
    entries: list[TableEntry] = []
    for number in range(MAX_ENTRIES + 1):
        at = number * _ENTRY.size
        if at + _ENTRY.size > len(raw):
            raise FormatError("certificate table has no end entry (all zero)")
        guid, offset, length = _ENTRY.unpack_from(raw, at)
        if not any(guid):
            return tuple(entries)
        if offset + length > len(raw):
            raise FormatError(
                f"certificate table entry {number} ends at {offset + length}, required at most {len(raw)}"
            )
        identifier = _text(guid)
        entries.append(TableEntry(KINDS.get(identifier, identifier), raw[offset : offset + length]))
    raise FormatError(f"certificate table has more than {MAX_ENTRIES} entries")


def encode_certificate_table(entries: Iterable[TableEntry]) -> bytes:
    """A table with the entries in order. Raises FormatError for an unknown kind or a table that gets too large."""
    by_kind = {kind: bytes.fromhex(identifier.replace("-", "")) for identifier, kind in KINDS.items()}
    listed = list(entries)
    offset = (len(listed) + 1) * _ENTRY.size
    head, body = b"", b""
    for entry in listed:
        if entry.kind not in by_kind:
            raise FormatError(f"certificate kind is {entry.kind!r}, required one of {', '.join(by_kind)}")
        head += _ENTRY.pack(by_kind[entry.kind], offset + len(body), len(entry.data))
        body += entry.data
    raw = head + bytes(_ENTRY.size) + body
    if len(raw) > MAX_TABLE_SIZE or len(listed) > MAX_ENTRIES:
        raise FormatError(f"certificate table has {len(raw)} bytes, {len(listed)} entries")
    return raw


def _text(guid: bytes) -> str:
    """A GUID as text; stored in the order it is printed, not as EFI does. `uuid` would bring `platform` along."""
    digits = guid.hex()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
