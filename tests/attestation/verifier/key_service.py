"""A maker of the tests' own: a Milan hierarchy that one verifier pins in place of AMD's, and a key service for it.

The key service has the real URLs, so between the chip and the verdict everything is real.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import socketserver
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from attestation.evidence.coco_document import coco_document
from attestation.evidence.source import CollectedEvidence
from attestation.pki.certificates import Certificate
from attestation.pki.kds import VcekId
from attestation.report.products import MILAN
from attestation.report.report_data import padded
from kbs.ephemeral_key import EphemeralKey
from kbs.guest import write_additional_evidence, write_attest
from kbs.messages import binding
from tests.attestation.conftest import Platform
from tests.attestation.verifier.guest import Answer
from tests.attestation.verifier.process import Site, Verifier, start_command
from tests.attestation.verifier.tokens import Issuer
from tests.support.paths import ROOT
from tests.support.processes import listening_ports

# `morphisms`, but for the one constant that only AMD could match, and for the pace that a test can wait for.
_START = """
import functools, sys
from attestation.pki import kds, roots
roots.AMD_ARKS = {"Milan": sys.argv.pop(1)}
pace = float(sys.argv.pop(1))
from attestation.verifier import assembly
from server import logs
class Telling(kds.KeyService):
    async def vcek(self, identity, client):
        logs.info("queued", client=client)  # in one step of the event loop with what it tells
        return await super().vcek(identity, client)
assembly.KeyService = Telling
if pace:
    assembly.KeyService = functools.partial(Telling, limits=kds.RequestLimits(between_vceks=pace))
from cli.main import main
sys.argv[0] = "morphisms"
sys.exit(main())
"""
HOST_DATA, MEASUREMENT = b"h" * 32, b"m" * 48
HttpAnswer = tuple[int, dict[str, str], bytes]


@dataclass
class Maker:
    """The chip, and what its key service answers."""

    platform: Platform
    retry_after: str = "1"
    refusals: int = 0
    """So many times it says 429 to a request for the VCEK."""
    asked: list[str] = field(default_factory=list)
    """Paths of the requests for VCEKs."""
    lists_asked: list[str] = field(default_factory=list)
    """Paths of the requests for chains and revocation lists."""

    def __post_init__(self) -> None:
        self.leaf, self.key = self.platform.leaf()
        self.vcek_path = VcekId(MILAN, self.platform.chip_id, self.platform.tcb).path()
        self.files = {
            "/vcek/v1/Milan/cert_chain": pem(self.platform.ask()) + pem(self.platform.ark),
            "/vcek/v1/Milan/crl": self.platform.crl().der,
        }

    def key_service(self, path: str) -> HttpAnswer:
        if not urlsplit(path).query:
            self.lists_asked.append(path)
            return (200, {}, self.files[path]) if path in self.files else (404, {}, b"")
        self.asked.append(path)
        if path != self.vcek_path:
            return 404, {}, b""
        if len(self.asked) <= self.refusals:
            return 429, {"Retry-After": self.retry_after}, b""
        return 200, {}, self.leaf.der

    def report(self, report_data: bytes, **bent: Any) -> bytes:
        """A report of the chip; bent as `Platform.report`."""
        fields = {"report_data": report_data, "host_data": HOST_DATA, "measurement": MEASUREMENT} | bent
        return self.platform.report(self.key, **fields)

    def machine(self, path: str) -> HttpAnswer:
        """As `morphisms simulated-hardware`, without the certificate table that a kinder host would add."""
        (text,) = parse_qs(urlsplit(path).query)["report_data"]
        return 200, {}, self.report(bytes.fromhex(text))

    @property
    def guest(self) -> dict[str, Any]:
        """Reference values of the guest on this chip."""
        return {
            "product": "Milan",
            "measurements": [MEASUREMENT.hex()],
            "initdata": "enforced",
            "minTcb": dict(self.platform.tcb.as_dict().items()),
        }


def pem(certificate: Certificate) -> bytes:
    return x509.load_der_x509_certificate(certificate.der).public_bytes(Encoding.PEM)


@contextlib.contextmanager
def connect_proxy(target: int, *, refuses: bool = False) -> Iterator[tuple[str, list[str]]]:
    """A company's proxy: its address, and the hosts that CONNECT has named. All lead to the port `target`."""
    asked: list[str] = []

    class Proxy(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            asked.append(self.rfile.readline().decode().strip())
            while self.rfile.readline().strip():
                pass
            if refuses:
                self.wfile.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
                return
            with socket.create_connection(("127.0.0.1", target)) as beyond:
                self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                ends = {self.connection: beyond, beyond: self.connection}
                while True:
                    readable, _, _ = select.select(list(ends), [], [], 300)
                    for end in readable:
                        data = end.recv(65536)
                        if not data:
                            return
                        ends[end].sendall(data)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Proxy) as server:
        server.daemon_threads = True
        threading.Thread(target=lambda: server.serve_forever(0.02), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", asked
        finally:
            server.shutdown()


@contextlib.contextmanager
def serving(answer: Callable[[str], HttpAnswer], tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """The address of an HTTP server; without `tls` a plain one."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            status, headers, body = answer(self.path)
            self.send_response_only(status)
            for name, value in (headers | {"Content-Length": str(len(body))}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=lambda: server.serve_forever(0.02), daemon=True).start()
    try:
        yield f"{'http' if tls is None else 'https'}://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def milan_verifier(
    site: Site, maker: Maker, *, pace: float = 0.0, environment: dict[str, str] | None = None, **certificates: Any
) -> Iterator[Verifier]:
    """A verifier with a cold cache that asks this maker's key service.

    `pace`: seconds between two requests for VCEKs in place of AMD's ten; 0 keeps AMD's.
    """
    (site.folder / "ark.pem").write_bytes(pem(maker.platform.ark))
    with serving(maker.key_service) as url:
        settings = {"roots": ["ark.pem"], "keyService": url, "cache": "cache"}
        site.settings["certificates"] = settings | certificates
        words = [sys.executable, "-c", _START, maker.platform.ark.sha256, str(pace), *start_command(site)[3:]]
        with (site.folder / "milan.log").open("wb") as log:
            process = subprocess.Popen(words, stderr=log, cwd=ROOT, env=environment)
        try:
            ports = listening_ports(process, site.folder / "milan.log")
            yield Verifier(process, site, site.folder / "milan.log", *ports)
        finally:
            process.kill()
            process.wait()


def attest(
    running: Verifier,
    maker: Maker,
    issuer: Issuer,
    *,
    namespace: str = "shop",
    uid: str = "pod",
    bound: bool = True,
    **bent: Any,
) -> Answer:
    """One attestation, the report bent before it is signed; `bound` False: REPORT_DATA of another request."""
    client = running.client()
    try:
        nonce, key = client.nonce(), EphemeralKey()
        additional = write_additional_evidence(issuer.token(namespace=namespace, uid=uid))
        digest = binding(nonce, key.public, additional) if bound else os.urandom(48)
        primary = coco_document(CollectedEvidence("simulated", maker.report(padded(digest), **bent)))
        return client.attest(write_attest(nonce, key.public, primary, additional))
    finally:
        client.close()
