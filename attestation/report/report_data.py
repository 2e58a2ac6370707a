"""REPORT_DATA: how the 48-byte digest a guest binds is laid out in 64 bytes, in exactly two accepted ways."""

from __future__ import annotations

import base64
import hmac

from attestation.errors import FormatError

DIGEST_SIZE = 48  # SHA-384
REPORT_DATA_SIZE = 64


def padded(digest: bytes) -> bytes:
    """The digest and 16 zero bytes: what KBS clients do."""
    return _digest(digest) + bytes(REPORT_DATA_SIZE - DIGEST_SIZE)


def ascii_encoded(digest: bytes) -> bytes:
    """64 ASCII characters, base64url: passes unchanged through every version of CoCo's guest agent."""
    return base64.urlsafe_b64encode(_digest(digest))


def accepted(digest: bytes) -> tuple[bytes, bytes]:
    """Both accepted encodings of a SHA-384 digest. Raises FormatError for another length."""
    return padded(digest), ascii_encoded(digest)


def matches(report_data: bytes, candidates: tuple[bytes, ...]) -> bool:
    """REPORT_DATA is one of the candidates; constant time in their content."""
    found = False
    for candidate in candidates:
        found |= hmac.compare_digest(report_data, candidate)
    return found


def _digest(digest: bytes) -> bytes:
    if len(digest) != DIGEST_SIZE:
        raise FormatError(f"digest has {len(digest)} bytes, required {DIGEST_SIZE}")
    return digest
