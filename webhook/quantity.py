"""Kubernetes' resource quantities: a decimal number with a decimal or binary suffix, or with an exponent.

https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
"""

from __future__ import annotations

import re
from decimal import ROUND_CEILING, Decimal
from functools import lru_cache
from typing import Any, Final

_QUANTITY: Final = re.compile(
    r"([+-]?(?:[0-9]{1,30}(?:\.[0-9]{0,30})?|\.[0-9]{1,30}))(?:(n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)|[eE]([+-]?[0-9]{1,2}))?"
)
_SUFFIXES: Final = {
    "n": Decimal("0.000000001"),
    "u": Decimal("0.000001"),
    "m": Decimal("0.001"),
    **{suffix: Decimal(1000) ** (power + 1) for power, suffix in enumerate("kMGTPE")},
    **{f"{suffix}i": Decimal(1024) ** (power + 1) for power, suffix in enumerate("KMGTPE")},
}


def amount_of(value: Any) -> Decimal | None:
    """The amount that a text or number stands for as a quantity; None if it is not one."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    text = str(value)
    return _amount_of_text(text) if len(text) < 80 else None


# Pods of one cluster share a few quantities, and each decision asks for the same ones again.
@lru_cache(maxsize=512)
def _amount_of_text(text: str) -> Decimal | None:
    match = _QUANTITY.fullmatch(text)
    if match is None:
        return None
    exponent = Decimal(10) ** int(match[3]) if match[3] else Decimal(1)
    return Decimal(match[1]) * _SUFFIXES.get(match[2], Decimal(1)) * exponent


def same_amount(one: Any, other: Any) -> bool:
    """Whether both are written alike or stand for the same amount: the API server stores 0.5 as 500m, 1024Ki as 1Mi."""
    if one == other:
        return True
    amount = amount_of(one)
    return amount is not None and amount == amount_of(other)


def quantity_text(amount: Decimal, resource: str) -> str:
    """An amount as the API server writes it: cores in whole or thousandth ones, bytes in the largest binary unit."""
    if resource == "cpu":
        milli = (amount * 1000).to_integral_value(ROUND_CEILING)
        return str(milli // 1000) if milli % 1000 == 0 else f"{milli}m"
    whole = int(amount.to_integral_value(ROUND_CEILING))
    for power, suffix in reversed(list(enumerate("KMGTPE", 1))):
        if whole and whole % 1024**power == 0:
            return f"{whole // 1024**power}{suffix}i"
    return str(whole)
