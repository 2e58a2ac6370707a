"""A pytest plugin: which tests of the node tier a run has, and one last line that says why it has none."""

from __future__ import annotations

import os
from typing import Final

import pytest
from xdist.workermanage import WorkerController  # type: ignore[import-untyped]

from tests.node import probe

VARIABLE: Final = "NODE"
_INPUT: Final = "node_tier_left_out"
_WHY_NOT: Final = pytest.StashKey[str | None]()


def wanted(value: str, why_not: str | None, *, long: bool) -> bool:
    """Whether a test belongs to the run. `value` is NODE's: 1 takes the short ones, `all` the long ones too."""
    return why_not is None and (value == "all" or (value == "1" and not long))


def asked(value: str | None) -> str:
    """NODE's value: empty where no node tier is asked for, as with 0."""
    return value if value and value != "0" else ""


def pytest_configure(config: pytest.Config) -> None:
    """Ask the probe once: processes of one run that decided differently would collect different tests."""
    value = asked(os.environ.get(VARIABLE))
    if (given := getattr(config, "workerinput", None)) is not None:
        config.stash[_WHY_NOT] = given[_INPUT]
    else:
        config.stash[_WHY_NOT] = probe.why_not() if value else None


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: WorkerController) -> None:
    """Tell a worker what the probe said."""
    node.workerinput[_INPUT] = node.config.stash[_WHY_NOT]


def pytest_report_header(config: pytest.Config) -> str | None:
    """What the probe said, where it was asked."""
    if not asked(os.environ.get(VARIABLE)):
        return None
    why_not = config.stash[_WHY_NOT]
    return f"node tier: {'this machine can carry a node' if why_not is None else f'left out: {why_not}'}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Take out the others."""
    value, why_not = asked(os.environ.get(VARIABLE)), config.stash[_WHY_NOT]
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
    if not hasattr(config, "workerinput") and (why_not := config.stash.get(_WHY_NOT, None)) is not None:
        print(f"node tier left out: {why_not}")
