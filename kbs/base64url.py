"""Base64url without padding (RFC 4648, 5), in the one spelling that each run of bytes has."""

from __future__ import annotations

import base64
import binascii


def encode(raw: bytes) -> str:
    """The text of the bytes."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def decode(text: object, size: int | None = None) -> bytes:
    """The bytes that `encode` wrote, `size` of them where it is given.

    Raises ValueError for anything else, also for another spelling of them.
    """
    if isinstance(text, str) and text.isascii() and size in (None, len(text) * 3 // 4):
        try:
            raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        except binascii.Error:
            raw = None
        # The last character may have bits to spare.
        if raw is not None and encode(raw) == text:
            return raw
    if size is None:
        raise ValueError("required base64url without padding")
    raise ValueError(f"required {size} bytes as base64url without padding")
