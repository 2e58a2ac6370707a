"""Startup and liveness probes: plain HTTP, answered by a thread of its own while the main thread waits for Vault.

A startup probe is held until the secrets are published, because a kubelet that hears "not yet" asks again a whole
second later, and the application waits for that second.

Everyone in the cluster can connect. So the server takes only GET and HEAD, one request per connection, bounded in size,
time and number, and answers with a state and reason codes that name no secret.
"""

from __future__ import annotations

import errno
import json
import selectors
import signal
import socket
import threading
import time
from dataclasses import dataclass, field
from typing import Any, Final

from plan.layout import LIVENESS_PATH, STARTUP_PATH
from sidecar.errors import SidecarError
from sidecar.reasons import Reason
from sidecar.shutdown import HANDLED

MAX_CONNECTIONS: Final = 32
_TAKEN: Final = (errno.EADDRINUSE, errno.EACCES)
MAX_REQUEST: Final = 4096  # the kubelet's has some 120 bytes
REQUEST_SECONDS: Final = 2.0  # its probe waits for one
# Within the probe's timeout of one second; the next probe comes one second after the held one.
HOLD_SECONDS: Final = 0.9
_LOOK_SECONDS: Final = 0.01  # how soon a held probe hears of the publication
# Each task has a deadline far below; a loop that has not come round for so long is stuck.
STUCK_SECONDS: Final = 900.0


class Status:
    """What the probes report; written by the main thread, read by the one that answers."""

    def __init__(self) -> None:
        self.published = 0
        """How often secrets were published; 0 before the first time."""
        self.troubles: list[str] = []
        self._round = time.monotonic()

    def heartbeat(self) -> None:
        """Note that the loop has come round."""
        self._round = time.monotonic()

    def answer(self, path: str) -> tuple[int, dict[str, Any]]:
        """HTTP status and body for a path."""
        state = "starting" if not self.published else "troubled" if self.troubles else "well"
        body = {"state": state, "published": self.published, "troubles": self.troubles}
        if path == STARTUP_PATH:
            return (200 if self.published else 503), body
        if path == LIVENESS_PATH:
            # A restart would not end an outage, and would lose the token that is still valid.
            stuck = self.published and time.monotonic() - self._round > STUCK_SECONDS
            return (503, {**body, "state": "stuck"}) if stuck else (200, body)
        return 404, {"state": "no such path"}


@dataclass(slots=True)
class _Connection:
    """One connection."""

    socket: socket.socket
    ends: float
    received: bytearray = field(default_factory=bytearray)
    is_held: bool = False
    """A startup probe that waits for the publication. Nothing more is read from it."""


class HealthServer:
    """The server on a socket of `listen`."""

    def __init__(self, listener: socket.socket, status: Status) -> None:
        self._status = status
        self._listener = listener
        self._listener.setblocking(False)
        self.port = int(self._listener.getsockname()[1])
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._connections: dict[int, _Connection] = {}

    def start(self) -> None:
        """Answer in a thread, until the process ends."""
        thread = threading.Thread(target=self._serve, name="health", daemon=True)
        # A signal delivered to this thread would not wake the main thread.
        previous = signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
        thread.start()
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)

    def _serve(self) -> None:
        while True:
            for key, _ in self._selector.select(self._select_timeout()):
                if key.fileobj is self._listener:
                    self._accept()
                # One that was dropped in this same round, to make room, has gone.
                elif (caller := self._connections.get(key.fd)) is not None and caller.socket is key.fileobj:
                    self._receive(caller)
            now = time.monotonic()
            for caller in list(self._connections.values()):
                if caller.is_held and (self._status.published or caller.ends <= now):
                    self._respond(caller)
                elif caller.ends <= now:
                    self._drop(caller)

    def _select_timeout(self) -> float | None:
        if not self._connections:
            return None
        left = max(0.0, min(each.ends for each in self._connections.values()) - time.monotonic())
        return min(left, _LOOK_SECONDS) if any(each.is_held for each in self._connections.values()) else left

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:  # it has gone again, or no descriptor is left: do not spin
            time.sleep(0.05)
            return
        if len(self._connections) >= MAX_CONNECTIONS:
            # The oldest connection had the longest time to send; the kubelet sends as soon as it is connected.
            self._drop(next(iter(self._connections.values())))
        connection.setblocking(False)
        caller = _Connection(connection, time.monotonic() + REQUEST_SECONDS)
        self._connections[connection.fileno()] = caller
        self._selector.register(connection, selectors.EVENT_READ)

    def _receive(self, caller: _Connection) -> None:
        try:
            received = caller.socket.recv(MAX_REQUEST)
        except BlockingIOError:
            return
        except OSError:
            received = b""
        caller.received += received
        if b"\r\n\r\n" in caller.received:
            if not self._status.published and caller.received.startswith(_STARTUP_PROBES):
                self._hold(caller)
            else:
                self._respond(caller)
        elif len(caller.received) > MAX_REQUEST:
            self._answer(caller, 431, {"state": "request too large"})
        elif not received:
            self._drop(caller)

    def _hold(self, caller: _Connection) -> None:
        caller.is_held, caller.ends = True, time.monotonic() + HOLD_SECONDS
        self._selector.unregister(caller.socket)

    def _respond(self, caller: _Connection) -> None:
        self._answer(caller, *self._route(bytes(caller.received)), head_only=caller.received.startswith(b"HEAD "))

    def _route(self, request: bytes) -> tuple[int, dict[str, Any]]:
        words = request.split(b"\r\n", 1)[0].split(b" ")
        if len(words) != 3 or words[2] not in (b"HTTP/1.1", b"HTTP/1.0"):
            return 400, {"state": "not HTTP/1.1"}
        if words[0] not in (b"GET", b"HEAD"):
            return 405, {"state": "only GET and HEAD are answered"}
        return self._status.answer(words[1].decode("ascii", "replace"))

    def _answer(self, caller: _Connection, status: int, body: dict[str, Any], *, head_only: bool = False) -> None:
        content = json.dumps(body, separators=(",", ":")).encode() + b"\n"
        head = f"HTTP/1.1 {status} {_WORDS[status]}\r\nContent-Type: application/json\r\nCache-Control: no-store\r\n"
        head += f"Content-Length: {len(content)}\r\nConnection: close\r\n\r\n"
        try:
            caller.socket.send(head.encode() + (b"" if head_only else content))
            caller.socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        self._drop(caller)

    def _drop(self, caller: _Connection) -> None:
        if not caller.is_held:
            self._selector.unregister(caller.socket)
        del self._connections[caller.socket.fileno()]
        caller.socket.close()


_STARTUP_PROBES: Final = tuple(f"{method} {STARTUP_PATH} HTTP/1.".encode() for method in ("GET", "HEAD"))
_WORDS: Final = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
}


def listen(address: tuple[str, int]) -> socket.socket:
    """Listen on all of the pod's addresses: the kubelet connects to the pod's IP, of either family.

    Port 0 takes any free one. A probe that connects from now on waits for its answer. Raises SidecarError.
    """
    host, port = address
    try:
        return _bound(host, port)
    except OSError as error:
        if host == "::" and error.errno not in _TAKEN:
            host = "0.0.0.0"  # noqa: S104  # a node without IPv6
            try:
                return _bound(host, port)
            except OSError as other:
                error = other
        raise SidecarError(
            Reason.HEALTH_PORT,
            f"cannot listen on port {port} for the kubelet's probes: {error.strerror}",
        ) from None


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server(
        (host, port),
        family=family,
        backlog=MAX_CONNECTIONS,
        dualstack_ipv6=host == "::" and socket.has_dualstack_ipv6(),
    )
