"""Startup and liveness probes: plain HTTP, answered by a thread of its own while the main thread waits for Vault.

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


class HealthServer:
    """The server; `address` with port 0 takes any free one."""

    def __init__(self, address: tuple[str, int], status: Status) -> None:
        self._status = status
        self._listener = _listen(address)
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
            for caller in [each for each in self._connections.values() if each.ends <= now]:
                self._drop(caller)

    def _select_timeout(self) -> float | None:
        if not self._connections:
            return None
        return max(0.0, min(each.ends for each in self._connections.values()) - time.monotonic())

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
            self._answer(caller, *self._route(bytes(caller.received)), head_only=caller.received.startswith(b"HEAD "))
        elif len(caller.received) > MAX_REQUEST:
            self._answer(caller, 431, {"state": "request too large"})
        elif not received:
            self._drop(caller)

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
        self._selector.unregister(caller.socket)
        del self._connections[caller.socket.fileno()]
        caller.socket.close()


_WORDS: Final = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
}


def _listen(address: tuple[str, int]) -> socket.socket:
    """Listen on all of the pod's addresses: the kubelet connects to the pod's IP, of either family."""
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
