"""Kubernetes' resource quantities: a decimal number with a decimal or binary suffix."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any, Final

_QUANTITY: Final = re.compile(r"([+-]?[0-9]{1,30}(?:\.[0-9]{1,30})?)(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?")
_SUFFIXES: Final = {
    "m": Decimal("0.001"),
    **{suffix: Decimal(1000) ** (power + 1) for power, suffix in enumerate("kMGTPE")},
    **{f"{suffix}i": Decimal(1024) ** (power + 1) for power, suffix in enumerate("KMGTPE")},
}


def amount_of(value: Any) -> Decimal | None:
    """The amount of a text or number as a quantity; None when it is not a quantity."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    match = _QUANTITY.fullmatch(str(value)) if len(str(value)) < 80 else None
    return None if match is None else Decimal(match[1]) * _SUFFIXES.get(match[2], Decimal(1))


def same_amount(one: Any, other: Any) -> bool:
    """Whether both are equal, or the same amount: the API server stores 0.5 as 500m, and 1024Ki as 1Mi."""
    amount = amount_of(one)
    return bool(one == other) or (amount is not None and amount == amount_of(other))
