"""Connections on their way from a parent to a worker, over a Unix socket of whole messages.

The parent sends one connection a message. The worker answers with what it has taken in all, and how many it has open.
The parent keeps its own descriptor of a connection until then, so that a worker that ends takes none with it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

_COUNTS: Final = struct.Struct("!QI")
_AT_ONCE: Final = 16


def pair() -> tuple[socket.socket, socket.socket]:
    """The parent's end and the worker's, which does not block either."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    theirs.setblocking(False)
    return ours, theirs


class HandingDown:
    """The parent's end, with the connections that the worker has not taken yet."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self.sent = 0  # connections in all
        self._open = 0
        self._waiting: deque[socket.socket] = deque()

    def fileno(self) -> int:
        return self._end.fileno()

    @property
    def waiting(self) -> int:
        """How many connections the worker has not taken yet."""
        return len(self._waiting)

    @property
    def open(self) -> int:
        """How many connections the worker has, with those on their way."""
        return self._open + len(self._waiting)

    def send(self, connection: socket.socket) -> bool:
        """Hand one down. Returns False when the worker, or the machine, has no room for it now."""
        try:
            socket.send_fds(self._end, [b"\0"], [connection.fileno()])
        except OSError:  # no room in the socket, too many descriptors on their way, or no worker any more
            return False
        self.sent += 1
        self._waiting.append(connection)
        return True

    def receive(self) -> bool:
        """Take note of what the worker says. Returns False when it has gone."""
        while True:
            try:
                message = self._end.recv(_COUNTS.size)
            except BlockingIOError:
                return True
            except OSError:
                return False
            if len(message) != _COUNTS.size:
                return False
            taken, self._open = _COUNTS.unpack(message)
            while self._waiting and self.sent - len(self._waiting) < taken:
                self._waiting.popleft().close()

    def close(self) -> None:
        """No more connections. The worker takes those on their way first."""
        with contextlib.suppress(OSError):
            self._end.shutdown(socket.SHUT_WR)

    def discard(self) -> list[socket.socket]:
        """Close the socket of a worker that has gone; returns the connections that it had not taken."""
        self._end.close()
        left, self._waiting = list(self._waiting), deque()
        return left


class HandedDown:
    """The worker's end."""

    def __init__(self, descriptor: int) -> None:
        self._end = socket.socket(fileno=descriptor)
        self._end.setblocking(False)
        os.set_inheritable(descriptor, False)
        self._taken = 0
        self._said: tuple[int, int] | None = None
        self.is_over = False

    def fileno(self) -> int:
        return self._end.fileno()

    def take(self, out_of_descriptors: Callable[[], None]) -> Iterator[socket.socket]:
        """The connections that have arrived, some at a time. `is_over` is set once there can be no more.

        One that this process had no descriptor for is lost: `out_of_descriptors` is called for it.
        """
        for _ in range(_AT_ONCE):
            try:
                message, descriptors, _, _ = socket.recv_fds(self._end, 16, 1, socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                return
            except OSError:
                message, descriptors = b"", []
            if not message:
                self.is_over = True
                return
            self._taken += 1
            if descriptors:
                yield socket.socket(fileno=descriptors[0])
            else:
                out_of_descriptors()

    def say(self, open_: int) -> None:
        """Tell the parent what has been taken so far, and how many connections are open."""
        counts = (self._taken, open_)
        if counts == self._said:
            return
        # Counts that find no room are made up for by the next ones.
        with contextlib.suppress(OSError):
            self._end.send(_COUNTS.pack(*counts))
            self._said = counts
