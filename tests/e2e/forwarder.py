"""A TCP forwarder: what stands between two parties, such as a Service in front of replicas. It sees ciphertext only."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass
class Forwarder:
    """`targets`: ports in order of preference; a new connection goes to the first that takes it."""

    targets: list[int]
    port: int = 0
    taken: list[int] = field(default_factory=list)
    """The target of each connection so far; 0 when none took it."""
    came: int = 0
    """Connections so far, held or forwarded."""
    held: threading.Event = field(default_factory=threading.Event)
    """Set when a connection has come and waits."""
    _open: threading.Event = field(default_factory=threading.Event)
    _answering: threading.Event = field(default_factory=threading.Event)
    _sockets: list[socket.socket] = field(default_factory=list)

    def hold(self) -> None:
        """From now on new connections are taken and lead nowhere, until `release`."""
        self.held.clear()
        self._open.clear()

    def release(self) -> None:
        self._open.set()
        self._answering.set()

    def hold_answers(self) -> None:
        """From now on nothing comes back, until `release`."""
        self._answering.clear()

    def serve(self, listener: socket.socket) -> None:
        """Until the listener is closed."""
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            self._sockets.append(client)
            self.came += 1
            threading.Thread(target=self._forward, args=(client,), daemon=True).start()

    def is_idle(self) -> bool:
        """Whether every connection has ended."""
        return all(each.fileno() == -1 for each in tuple(self._sockets))

    def close(self) -> None:
        """End every connection."""
        self.release()
        for each in self._sockets:
            _end(each)

    def _forward(self, client: socket.socket) -> None:
        if not self._open.is_set():
            self.held.set()
            self._open.wait()
        server = self._connected()
        if server is None:
            _end(client)
            return
        self._sockets.append(server)
        threading.Thread(target=_pump, args=(server, client, self._answering), daemon=True).start()
        _pump(client, server)

    def _connected(self) -> socket.socket | None:
        for port in tuple(self.targets):
            with contextlib.suppress(OSError):
                server = socket.create_connection(("127.0.0.1", port), 5)
                server.settimeout(None)
                self.taken.append(port)
                return server
        self.taken.append(0)
        return None


@contextlib.contextmanager
def forwarder(*targets: int) -> Iterator[Forwarder]:
    """A running one."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    running = Forwarder([*targets], listener.getsockname()[1])
    running.release()
    thread = threading.Thread(target=running.serve, args=(listener,), daemon=True)
    thread.start()
    try:
        yield running
    finally:
        # An accept under way does not notice a close.
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        running.close()
        thread.join(5)


def _pump(source: socket.socket, sink: socket.socket, gate: threading.Event | None = None) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(64 * 1024):
            if gate is not None:
                gate.wait()
            sink.sendall(data)
    # Half a connection is of no use to anybody here.
    _end(source)
    _end(sink)


def _end(each: socket.socket) -> None:
    with contextlib.suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
    each.close()
