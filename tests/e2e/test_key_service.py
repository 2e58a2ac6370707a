"""AMD's key service limits, and pods start all the same: a cold cache, a host that hands out no certificates.

The maker is the test's own: a Milan hierarchy, whose root this one verifier pins in place of AMD's, and a key service
with the real URLs. Between them everything is real.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from attestation.pki.certificates import Certificate
from attestation.pki.kds import VcekId
from attestation.report.products import MILAN
from attestation.simulator.hierarchy import Hierarchy
from plan.document import EvidenceSource
from sidecar.reasons import Exit
from tests.attestation.conftest import Platform
from tests.attestation.verifier.process import Site, Verifier, policy, start_command
from tests.attestation.verifier.tokens import Issuer
from tests.e2e.raft import RaftOpenBao
from tests.e2e.site import NewPod, replica
from tests.sidecar.pod import CANARY, Pod, refused
from tests.support.paths import ROOT
from tests.support.processes import listening_ports

# `morphisms`, but for the one constant that only AMD could match.
_START = """
import sys
from attestation.pki import roots
roots.AMD_ARKS = {"Milan": sys.argv.pop(1)}
from cli.main import main
sys.argv[0] = "morphisms"
sys.exit(main())
"""
_HOST_DATA, _MEASUREMENT = b"h" * 32, b"m" * 48
_Answer = tuple[int, dict[str, str], bytes]


@dataclass
class Maker:
    """The chip, and what its key service answers."""

    platform: Platform
    retry_after: str
    refusals: int
    """So many times it says 429 to a request for the VCEK."""
    asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.leaf, self._key = self.platform.leaf()
        self._vcek = VcekId(MILAN, self.platform.chip_id, self.platform.tcb).path()
        self._files = {
            "/vcek/v1/Milan/cert_chain": _pem(self.platform.ask()) + _pem(self.platform.ark),
            "/vcek/v1/Milan/crl": self.platform.crl().der,
        }

    def key_service(self, path: str) -> _Answer:
        if path in self._files:
            return 200, {}, self._files[path]
        self.asked.append(path)
        if path != self._vcek:
            return 404, {}, b""
        if len(self.asked) <= self.refusals:
            return 429, {"Retry-After": self.retry_after}, b""
        return 200, {}, self.leaf.der

    def machine(self, path: str) -> _Answer:
        """As `morphisms simulated-hardware`, without the certificate table that a kinder host would add."""
        (text,) = parse_qs(urlsplit(path).query)["report_data"]
        report = self.platform.report(
            self._key, report_data=bytes.fromhex(text), host_data=_HOST_DATA, measurement=_MEASUREMENT
        )
        return 200, {}, report


def _pem(certificate: Certificate) -> bytes:
    return x509.load_der_x509_certificate(certificate.der).public_bytes(Encoding.PEM)


@contextlib.contextmanager
def serving(answer: Callable[[str], _Answer]) -> Iterator[str]:
    """The address of a plain HTTP server."""

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
    threading.Thread(target=lambda: server.serve_forever(0.02), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def platform() -> Platform:
    return Platform(MILAN, datetime.now(UTC))


StartVerifier = Callable[[Maker], contextlib.AbstractContextManager[tuple[Verifier, str]]]


@pytest.fixture
def start_verifier(tmp_path: Path, site: Site, hierarchy: Hierarchy, issuer: Issuer) -> StartVerifier:
    """Starts a verifier with a cold cache that asks this maker's key service; with the machine's address."""

    @contextlib.contextmanager
    def start(maker: Maker) -> Iterator[tuple[Verifier, str]]:
        milan = replica(site, tmp_path / "milan", hierarchy, issuer)
        guest = {
            "product": "Milan",
            "measurements": [_MEASUREMENT.hex()],
            "minTcb": dict(maker.platform.tcb.as_dict().items()),
        }
        milan.write_guests({"milan": guest})
        milan.write_policy("payments", policy(guests=["milan"], hostData=[_HOST_DATA.hex()]))
        (milan.folder / "ark.pem").write_bytes(_pem(maker.platform.ark))
        with serving(maker.key_service) as key_service, serving(maker.machine) as machine:
            milan.settings["certificates"] = {"roots": ["ark.pem"], "keyService": key_service, "cache": "cache"}
            words = [sys.executable, "-c", _START, maker.platform.ark.sha256, *start_command(milan)[3:]]
            with (milan.folder / "milan.log").open("wb") as log:
                process = subprocess.Popen(words, stderr=log, cwd=ROOT)
            try:
                ports = listening_ports(process, milan.folder / "milan.log")
                yield Verifier(process, milan, milan.folder / "milan.log", *ports), machine
            finally:
                process.kill()
                process.wait()

    return start


def on(pod: Pod, running: Verifier, machine: str) -> Pod:
    """The pod, on this machine and with this verifier."""
    url = f"https://127.0.0.1:{running.port}"
    pod.change(verifier=replace(pod.plan.verifier, url=url), evidence=(EvidenceSource("simulated", machine),))
    return pod


@pytest.mark.slow
def test_pods_wait_out_a_key_service_that_limits(
    new_pod: NewPod, platform: Platform, start_verifier: StartVerifier, bao: RaftOpenBao
) -> None:
    before = bao.accessors()
    maker = Maker(platform, "1", refusals=1)
    with start_verifier(maker) as (running, machine):
        pods = [on(new_pod(), running, machine) for _ in range(3)]
        processes = [each.start() for each in pods]
        for each, process in zip(pods, processes, strict=True):
            ended = each.end(process)
            assert ended.code == 0, ended.stderr
            assert {retry["reason"] for retry in ended.named("retry")} == {"verifier-certificates-unavailable"}
            assert (each.secrets / "password").read_text().startswith(CANARY)
        assert len(maker.asked) == 2, "all pods of a chip are one question, asked again once"
        assert on(new_pod(), running, machine).run().code == 0
        assert len(maker.asked) == 2, "and the answer is kept"
        reasons = [each["reason"] for each in running.events("attestation")]
    assert set(reasons) == {"certificates-unavailable", "believed"}
    assert bao.accessors() == before


def test_a_key_service_that_keeps_refusing_fails_the_pod(
    pod: Pod, platform: Platform, start_verifier: StartVerifier
) -> None:
    maker = Maker(platform, "600", refusals=1_000)
    pod.change(deadline_seconds=5)
    with start_verifier(maker) as (running, machine):
        event = refused(on(pod, running, machine).run(), Exit.VERIFIER_UNREACHABLE, "verifier-certificates-unavailable")
        reasons = [each["reason"] for each in running.events("attestation")]
    assert "503" in event["detail"]
    assert len(reasons) > 1, "the pod asked again"
    assert set(reasons) == {"certificates-unavailable"}
    assert len(maker.asked) == 1, "and the key service was left in peace"
    assert pod.published() == []
