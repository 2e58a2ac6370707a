"""A TLS front of a real server that misbehaves as told: everything it does not spoil, the real one answers."""

from __future__ import annotations

import contextlib
import http.client
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.support.certificates import write_pair

# How the real server delimits its answers; the front has a length of its own.
_FRAMING = ("content-length", "transfer-encoding")


@dataclass
class Spoilt:
    """An answer instead of the real one's."""

    status: int = 503
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b"{}"
    trickle: bool = False
    each_byte: Callable[[], object] = int
    """Called before each byte of a trickle."""


@dataclass
class Request:
    """One request as it came."""

    method: str
    path: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = field(default=b"", repr=False)
    at: float = field(default_factory=time.monotonic)


# What to answer to the so-many-eth request of this path; None: what the real server says.
Fault = Callable[[Request, Sequence[Request]], Spoilt | None]


@dataclass
class Front:
    """A running front; `seen` holds every request so far."""

    url: str
    ca: str
    seen: list[Request]
    release: threading.Event
    folder: Path
    context: ssl.SSLContext

    def renew(self) -> None:
        """From the next connection on, another self-made certificate; `ca` is that one."""
        write_pair(self.folder)
        self.context.load_cert_chain(self.folder / "tls.crt", self.folder / "tls.key")
        self.ca = (self.folder / "ca.crt").read_text()

    def paths(self) -> list[str]:
        return [each.path for each in self.seen]


@contextlib.contextmanager
def front(
    folder: Path,
    target: tuple[int, str],
    fault: Fault,
    *,
    date: str | None = None,
    host: str = "127.0.0.1",
    closes: bool = False,
) -> Iterator[Front]:
    """A front of (port, CA as PEM); `date` replaces every answer's Date, `closes` makes each a connection's last one.

    Head and body leave in two writes, as from a server that streams.
    """
    folder.mkdir()
    write_pair(folder)
    trust = ssl.create_default_context(cadata=target[1])
    seen: list[Request] = []
    release = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _handle(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            request = Request(self.command, self.path, dict(self.headers.items()), body)
            spoilt = fault(request, tuple(seen))
            seen.append(request)
            self._answer(spoilt or self._real(body))

        def _real(self, body: bytes) -> Spoilt:
            connection = http.client.HTTPSConnection("127.0.0.1", target[0], context=trust, timeout=120)
            connection.request(self.command, self.path, body, dict(self.headers.items()))
            answer = connection.getresponse()
            kept = tuple((k, v) for k, v in answer.getheaders() if k.lower() not in _FRAMING)
            spoilt = Spoilt(answer.status, kept, answer.read())
            connection.close()
            return spoilt

        def _answer(self, spoilt: Spoilt) -> None:
            with contextlib.suppress(OSError):
                self.send_response_only(spoilt.status)
                for name, value in spoilt.headers:
                    if date is None or name.lower() != "date":
                        self.send_header(name, value)
                if date is not None:
                    self.send_header("Date", date)
                if closes:
                    self.send_header("Connection", "close")
                self.send_header("Content-Length", str(len(spoilt.body)))
                self.end_headers()
                if not spoilt.trickle:
                    self.wfile.write(spoilt.body)
                    return
                for byte in spoilt.body:
                    spoilt.each_byte()
                    self.wfile.write(bytes([byte]))
                    if release.wait(0.1):
                        return

        do_GET = do_POST = _handle  # noqa: N815  # the standard library's names

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=lambda: server.serve_forever(0.02), daemon=True)
    thread.start()
    try:
        yield Front(
            f"https://{host}:{server.server_port}", (folder / "ca.crt").read_text(), seen, release, folder, context
        )
    finally:
        release.set()
        server.shutdown()
        server.server_close()


def never(_request: Request, _seen: Sequence[Request]) -> Spoilt | None:
    """No fault."""
    return None
