"""An attacker who holds a server's memory: many connections, each with a body that never ends."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def unfinished_bodies(
    port: int, ca: Path, path: str, *, source: str, count: int, size: int, shrinks: bool = False
) -> Iterator[None]:
    """`count` connections from the address `source`, each with a body of `size` bytes but for its last one, again and
    again, while the block runs.

    `shrinks`: a connection that is refused halves its body, so that all together use up the room there is.
    """
    context = ssl.create_default_context(cafile=str(ca))
    sent, stop = threading.Semaphore(0), threading.Event()

    def hold() -> None:
        mine = size
        while not stop.is_set():
            head = f"POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {mine}\r\n\r\n".encode()
            with contextlib.suppress(OSError):
                plain = socket.create_connection(("127.0.0.1", port), source_address=(source, 0))
                with context.wrap_socket(plain, server_hostname="127.0.0.1") as secured:
                    with contextlib.suppress(OSError):  # it may be refused while it sends
                        secured.sendall(head + b" " * (mine - 1))
                    sent.release()
                    is_refused = _wait_for_answer(secured, stop)
                    mine = max(16, mine // 2) if is_refused and shrinks else size

    threads = [threading.Thread(target=hold, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(count):
            assert sent.acquire(timeout=300)
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(120)


def _wait_for_answer(secured: ssl.SSLSocket, stop: threading.Event) -> bool:
    """Whether the server has refused the body for its size or for want of room."""
    secured.settimeout(0.2)
    while not stop.is_set():
        try:
            return secured.recv(12).endswith((b"413", b"429"))
        except TimeoutError:
            continue
    return False
