"""The samples of a process (`sampled.py`) as two tables: by operation, and the functions that took most."""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence
from typing import NamedTuple

_DEPTH = 25  # functions printed below the operations


class Operation(NamedTuple):
    """An operation, and the beginnings of what its samples name: `MODULE:FUNCTION LIBRARY`. The first that fits counts.

    A library's time below no function of ours begins with a blank.
    """

    name: str
    beginnings: tuple[str, ...]


def print_operations(samples: Mapping[str, int], operations: Sequence[Operation], microseconds: float) -> None:
    """`microseconds`: processor time of one request, which the samples share out."""
    whole = sum(samples.values())
    spent: collections.Counter[str] = collections.Counter()
    for sample, count in samples.items():
        fits = (each.name for each in operations if sample.startswith(each.beginnings))
        spent[next(fits, "everything else")] += count
    for name, count in spent.most_common():
        print(f"  {name:44} {microseconds * count / whole:6.0f} µs {100 * count / whole:5.1f} %")
    print("the functions of ours that took most, with the module of a library where it worked for them")
    for sample, count in collections.Counter(samples).most_common(_DEPTH):
        print(f"  {sample.strip():84} {microseconds * count / whole:6.0f} µs")
