"""A small HTTP server in a thread, whose answers a test writes, and which notes what it was asked."""

from __future__ import annotations

import contextlib
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Asked:
    """One request."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Says:
    """One answer. `endless` repeats the body until the client goes; `silent` never answers."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    endless: bool = False
    silent: bool = False


class Server(ThreadingHTTPServer):
    """`answer` is asked for each request."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, answer: Callable[[Asked], Says]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer = answer
        self.asked: list[Asked] = []
        self.stopped = threading.Event()

    @property
    def address(self) -> str:
        """HOST:PORT."""
        return f"127.0.0.1:{self.server_address[1]}"

    def handle_error(self, *_: Any) -> None:
        """A client that goes away is what some tests are about."""


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        asked = Asked(self.command, self.path, dict(self.headers.items()), body)
        self.server.asked.append(asked)
        says = self.server.answer(asked)
        self.close_connection = True
        if says.silent:
            self.server.stopped.wait()
            return
        self.send_response(says.status)
        for name, value in says.headers.items():
            self.send_header(name, value)
        if not says.endless:
            self.send_header("Content-Length", str(len(says.body)))
        self.end_headers()
        self.wfile.write(says.body)
        while says.endless and not self.server.stopped.is_set():
            self.wfile.write(says.body)

    do_GET = _serve  # noqa: N815 - the names that http.server calls
    do_POST = _serve  # noqa: N815

    def log_message(self, *_: Any) -> None:
        pass


@contextlib.contextmanager
def serving(answer: Callable[[Asked], Says], tls: Path | None = None) -> Iterator[Server]:
    """Serve on a free port of loopback. `tls`: a folder with tls.crt and tls.key."""
    server = Server(answer)
    if tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls / "tls.crt", tls / "tls.key")
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.stopped.set()
        server.shutdown()
        server.server_close()
        thread.join()
