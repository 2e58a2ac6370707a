"""SIGINT and SIGTERM: raised as KeyboardInterrupt, but never between a child's start and the name it is known by.

A handler that raised inside `subprocess.Popen` would lose the child that was just started: it would outlive the demo.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class _State:
    held = 0
    pending = False


def install() -> None:
    """Take both signals. The second one of either kind is ignored, because it must not interrupt the cleanup."""
    for number in _SIGNALS:
        signal.signal(number, _handle)


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Put an interrupt off until the block has been left."""
    _State.held += 1
    try:
        yield
    finally:
        _State.held -= 1
    if _State.pending and not _State.held:
        _State.pending = False
        raise KeyboardInterrupt


def _handle(_number: int, _frame: FrameType | None) -> None:
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if _State.held:
        _State.pending = True
    else:
        raise KeyboardInterrupt
