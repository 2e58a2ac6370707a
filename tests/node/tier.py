"""A pytest plugin: which tests of the node tier a run has, and one last line that says why it has none."""

from __future__ import annotations

import os
from typing import Final

import pytest

from tests.node import probe

VARIABLE: Final = "NODE"


def wanted(value: str, why_not: str | None, *, long: bool) -> bool:
    """Whether a test belongs to the run. `value` is NODE's: 1 takes the short ones, `all` the long ones too."""
    return why_not is None and (value == "all" or (value == "1" and not long))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Take out the others."""
    value = os.environ.get(VARIABLE, "")
    why_not = probe.why_not() if value else None
    left_out = [
        item
        for item in items
        if item.get_closest_marker("node")
        and not wanted(value, why_not, long=item.get_closest_marker("slow") is not None)
    ]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def pytest_unconfigure(config: pytest.Config) -> None:
    """The last line of a run that was to have the tier and cannot."""
    if os.environ.get(VARIABLE) and not hasattr(config, "workerinput") and (why := probe.why_not()) is not None:
        print(f"node tier left out: {why}")
