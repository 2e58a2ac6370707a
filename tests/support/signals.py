"""A pytest plugin: the programs that tests start get default signal dispositions, however the run was started.

A shell starts a background job with SIGINT ignored, and `nohup` starts one with SIGHUP ignored. A child inherits that,
and a test that ends the child by such a signal would wait for ever. `exec` resets a signal that has a handler. So each
ignored signal gets a handler that does nothing: the run itself still ignores it.
"""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any

import pytest

_IGNORED = pytest.StashKey[list[int]]()
# Python ignores these two itself, and `subprocess` resets them.
_BY_PYTHON = {signal.SIGPIPE, signal.SIGXFSZ}


def pytest_configure(config: pytest.Config) -> None:
    """Replace the dispositions; an xdist worker, itself a child, learns from its controller which they were."""
    ignored: list[int] = getattr(config, "workerinput", {}).get("ignored_signals") or [
        int(number) for number in signal.valid_signals() - _BY_PYTHON if signal.getsignal(number) is signal.SIG_IGN
    ]
    for number in ignored:
        signal.signal(number, _do_nothing)
    config.stash[_IGNORED] = ignored


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a worker of xdist."""
    node.workerinput["ignored_signals"] = node.config.stash[_IGNORED]


def _do_nothing(_number: int, _frame: FrameType | None) -> None:
    pass
