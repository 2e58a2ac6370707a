"""JSON that a server or a token sent: any value may be missing or of another type."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def read_json(data: bytes | str) -> Any:
    """The decoded value. Raises ValueError for anything that is not JSON in UTF-8, deep nesting included."""
    try:
        return json.loads(data if isinstance(data, str) else data.decode())
    except RecursionError:
        raise ValueError("nested too deeply") from None


def mapping(value: object) -> Mapping[str, Any]:
    """The value if it is an object, else an empty one: each member is then missing."""
    return value if isinstance(value, dict) else {}
