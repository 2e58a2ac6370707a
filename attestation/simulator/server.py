"""The simulated machine's two doors: a report with its certificates, and the same as CoCo's attestation agent has it.

`GET /report?report_data=HEX` answers 1,184 bytes of report and then a GHCB certificate table;
`GET /aa/evidence?runtime_data=TEXT` the agent's evidence JSON, REPORT_DATA being the text's bytes and then zero.
"""

from __future__ import annotations

import json
import os
import socket
import stat
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import TCPServer, ThreadingMixIn, UnixStreamServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from attestation.evidence.coco_document import coco_document
from attestation.evidence.source import CollectedEvidence
from attestation.report.certificate_table import parse_certificate_table
from attestation.report.report_data import REPORT_DATA_SIZE
from attestation.simulator.device import Device

_IDLE_SECONDS = 10.0
_STOP_SECONDS = 0.1  # how long stopping may take to be noticed


class _BadRequestError(Exception):
    """The text is the answer's body."""


class _TcpServer(ThreadingMixIn, TCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False


class _Tcp6Server(_TcpServer):
    address_family = socket.AF_INET6


class _UnixServer(ThreadingMixIn, UnixStreamServer):
    daemon_threads = True
    block_on_close = False


class SimulatedMachine:
    """A running server. `address` is what the sources `simulated` and `coco-aa` take."""

    def __init__(self, device: Device, listen: tuple[str, int] | Path, *, report_seconds: float = 0.0) -> None:
        """Listen at a loopback (host, port), port 0 for any, or at a socket path (mode 0600). Raises OSError.

        `report_seconds`: how long a report takes. Then the machine makes one after the other, as firmware does.
        """
        handler = _handler(_Firmware(device, report_seconds))
        self._path: Path | None = None
        self._server: _TcpServer | _UnixServer
        if isinstance(listen, Path):
            _remove_stale(listen)
            self._server, self._path = _UnixServer(str(listen), handler), listen
            listen.chmod(0o600)
            self.address = f"unix:{listen.absolute()}"
        else:
            host, _ = listen
            self._server = (_Tcp6Server if ":" in host else _TcpServer)(listen, handler)
            port = self._server.server_address[1]
            self.address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_STOP_SECONDS,), name="simulated hardware", daemon=True
        )

    def start(self) -> None:
        """Answer, in threads of its own."""
        self._thread.start()

    def stop(self) -> None:
        """Stop listening; a request that is being answered is not waited for."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)


def _remove_stale(path: Path) -> None:
    """A socket that a killed predecessor left; anything else stays and makes the bind fail."""
    if path.exists() and stat.S_ISSOCK(os.lstat(path).st_mode):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            if probe.connect_ex(str(path)) != 0:
                path.unlink()


class _Firmware:
    """The device, as slow as it is told to be."""

    def __init__(self, device: Device, seconds: float) -> None:
        self._device = device
        self._seconds = seconds
        self._turn = threading.Lock()
        self.certificate_table = device.certificate_table()

    def report(self, report_data: bytes) -> bytes:
        """As Device.report."""
        if not self._seconds:
            return self._device.report(report_data)
        with self._turn:
            time.sleep(self._seconds)
            return self._device.report(report_data)


def _report(device: _Firmware, query: str) -> tuple[str, bytes]:
    try:
        report_data = bytes.fromhex(_parameter(query, "report_data"))
    except ValueError:
        raise _BadRequestError("report_data is not hexadecimal") from None
    if len(report_data) != REPORT_DATA_SIZE:
        raise _BadRequestError(f"report_data has {len(report_data)} bytes, required {REPORT_DATA_SIZE}")
    return "application/octet-stream", device.report(report_data) + device.certificate_table


def _coco(device: _Firmware, query: str) -> tuple[str, bytes]:
    report_data = _parameter(query, "runtime_data").encode("utf-8", "surrogateescape")
    if len(report_data) > REPORT_DATA_SIZE:
        raise _BadRequestError(f"runtime_data has {len(report_data)} bytes, at most {REPORT_DATA_SIZE} fit")
    evidence = CollectedEvidence(
        "simulated",
        device.report(report_data.ljust(REPORT_DATA_SIZE, b"\0")),
        parse_certificate_table(device.certificate_table),
    )
    return "application/octet-stream", json.dumps(coco_document(evidence), separators=(",", ":")).encode()


def _parameter(query: str, name: str) -> str:
    values = parse_qs(query, keep_blank_values=True, max_num_fields=4).get(name, [])
    if len(values) != 1:
        raise _BadRequestError(f"{name} is required once")
    return values[0]


_DOORS: dict[str, Callable[[_Firmware, str], tuple[str, bytes]]] = {"/report": _report, "/aa/evidence": _coco}


def _handler(device: _Firmware) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        server_version = "morphisms-simulated-hardware"
        sys_version = ""
        timeout = _IDLE_SECONDS

        def do_GET(self) -> None:
            path, query = (parts := urlsplit(self.path)).path, parts.query
            door = _DOORS.get(path)
            if door is None:
                self._answer(HTTPStatus.NOT_FOUND, "text/plain", b"not found\n")
                return
            try:
                kind, body = door(device, query)
            except (_BadRequestError, ValueError) as error:
                text = str(error) if isinstance(error, _BadRequestError) else "query cannot be read"
                self._answer(HTTPStatus.BAD_REQUEST, "text/plain", f"{text}\n".encode())
                return
            self._answer(HTTPStatus.OK, kind, body)

        def _answer(self, status: HTTPStatus, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def address_string(self) -> str:
            # A unix socket's peer has no address, and http.server would index into it.
            return "client"

        def log_message(self, format: str, *arguments: Any) -> None:
            """Quiet: a request line holds REPORT_DATA."""

    return Handler
