"""Real HTTP services on loopback: CoCo's guest agent as guest-components has it, and one that misbehaves as told."""

from __future__ import annotations

import json
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from attestation.evidence import CollectedEvidence, coco_document
from attestation.report.abi import REPORT_SIZE
from attestation.report.certificate_table import parse_certificate_table
from attestation.simulator.device import Device

# Takes the connection and the request's target, and writes the answer itself.
Respond = Callable[[socket.socket, str], None]


@dataclass
class Service:
    """`address` as the plan has it; `heads` are the request heads that came in."""

    address: str
    heads: list[bytes] = field(default_factory=list)

    @property
    def targets(self) -> list[str]:
        return [head.split(b" ")[1].decode() for head in self.heads]


@contextmanager
def serving(respond: Respond, path: Path | None = None) -> Iterator[Service]:
    """A service that answers each connection's request with `respond`, on a port of its own or at `path`."""
    heads: list[bytes] = []

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            head = b""
            while b"\r\n\r\n" not in head and (data := self.request.recv(65536)):
                head += data
            heads.append(head)
            with suppress(BrokenPipeError, ConnectionResetError):  # the client has seen enough
                respond(self.request, head.split(b" ")[1].decode())

    class Tcp(socketserver.ThreadingTCPServer):
        daemon_threads = True
        block_on_close = False

    class Unix(socketserver.ThreadingUnixStreamServer):
        daemon_threads = True
        block_on_close = False

    server = Tcp(("127.0.0.1", 0), Handler) if path is None else Unix(str(path), Handler)
    address = f"http://127.0.0.1:{server.socket.getsockname()[1]}" if path is None else f"unix:{path}"
    thread = threading.Thread(target=lambda: server.serve_forever(0.02), daemon=True)
    thread.start()
    try:
        yield Service(address, heads)
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def plain(status: str, body: bytes = b"", *headers: str) -> Respond:
    """Always this answer, its length announced."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return lambda connection, _: connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)


def evidence_json(device: Device, report_data: bytes) -> bytes:
    table = parse_certificate_table(device.certificate_table())
    report = device.report(report_data.ljust(64, b"\0"))
    assert len(report) == REPORT_SIZE
    return json.dumps(coco_document(CollectedEvidence("coco-aa", report, table))).encode()


def attestation_agent(device: Device) -> Respond:
    """api-server-rest/src/aa.rs: form-decoded `runtime_data`, its bytes zero-padded into REPORT_DATA."""

    def respond(connection: socket.socket, target: str) -> None:
        parts = urlsplit(target)
        parameters = dict(parse_qsl(parts.query))
        if parts.path != "/aa/evidence":
            return plain("404 Not Found")(connection, target)
        if "runtime_data" not in parameters:
            return plain("400 Bad Request")(connection, target)
        data = parameters["runtime_data"].encode()
        if len(data) > 64:
            return plain("500 Internal Server Error", b"rpc status: report data too long")(connection, target)
        head = "Content-Type: application/octet-stream"
        return plain("200 OK", evidence_json(device, data), head)(connection, target)

    return respond
