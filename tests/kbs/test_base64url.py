"""Base64url: one spelling for each run of bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbs.base64url import decode, encode


@given(st.binary(max_size=100))
def test_what_is_written_is_read(raw: bytes) -> None:
    assert decode(encode(raw)) == decode(encode(raw), len(raw)) == raw
    with pytest.raises(ValueError, match="bytes"):
        decode(encode(raw), len(raw) + 1)


@given(st.text(alphabet="ABab01-_=+/ é\n.", max_size=12), st.none() | st.integers(0, 9))
def test_another_spelling_is_refused(text: str, size: int | None) -> None:
    try:
        raw = decode(text, size)
    except ValueError:
        return
    assert encode(raw) == text
    assert size in (None, len(raw))
