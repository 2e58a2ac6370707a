"""A gate for those who make requests without pause, closed while a request may be lost by HTTP/1.1 itself.

A server that ends closes connections that its clients keep unused, and a request may be on its way on one of them. The
server cannot help that (`server/connections.py`); a lame duck longer than its clients' idle time, 90 s, would.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Final

_PATIENCE_SECONDS: Final = 120


class Traffic:
    """Requests are made within `passing`; within `stopped` there are none."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._passing = 0
        self._stops = 0

    @contextlib.contextmanager
    def passing(self) -> Iterator[None]:
        """Wait until nothing stops the traffic, and hold it open."""
        with self._changed:
            self._changed.wait_for(lambda: not self._stops)
            self._passing += 1
        try:
            yield
        finally:
            with self._changed:
                self._passing -= 1
                self._changed.notify_all()

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Let nobody pass any more, and wait for those who are under way."""
        with self._changed:
            self._stops += 1
        try:
            with self._changed:
                assert self._changed.wait_for(lambda: not self._passing, _PATIENCE_SECONDS), "requests do not end"
            yield
        finally:
            with self._changed:
                self._stops -= 1
                self._changed.notify_all()
