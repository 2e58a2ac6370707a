"""Nodes as decisions see them: small records, never whole objects."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Taint:
    """A node's taint; `effect` is NoSchedule, PreferNoSchedule or NoExecute."""

    key: str
    value: str
    effect: str


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """A node's name, labels and taints."""

    name: str
    labels: tuple[tuple[str, str], ...]
    taints: tuple[Taint, ...] = ()
