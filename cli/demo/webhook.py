"""The admission server of the demo: a process of its own, spoken to over TLS like the API server would."""

from __future__ import annotations

import base64
import http.client
import json
import re
import signal
import ssl
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_START_SECONDS = 30


class DemoWebhook:
    """`morphisms webhook` with a throw-away certificate in `folder`; use as a context manager."""

    def __init__(self, folder: Path, snapshot: Path) -> None:
        self._folder = folder
        _write_certificate(folder)
        arguments = ["--listen", "127.0.0.1:0", "--snapshot", str(snapshot)]
        arguments += ["--tls-cert", str(folder / "tls.crt"), "--tls-key", str(folder / "tls.key")]
        with (folder / "log").open("wb") as log:
            command = [sys.executable, "-m", "cli.main", "webhook", *arguments]
            self._process = subprocess.Popen(command, stderr=log)  # noqa: S603 - our own command
        self.port = self._listening_port()

    def __enter__(self) -> DemoWebhook:
        return self

    def __exit__(self, *_: object) -> None:
        # The second signal spares the wait for endpoints to move, which nobody here watches.
        self._process.send_signal(signal.SIGTERM)
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(30)

    def ask(self, path: str, review: dict[str, Any]) -> dict[str, Any]:
        """Post a review; its response, the patch decoded."""
        context = ssl.create_default_context(cafile=str(self._folder / "tls.crt"))
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=10, context=context)
        connection.request("POST", path, json.dumps(review), {"Content-Type": "application/json"})
        response: dict[str, Any] = json.loads(connection.getresponse().read())["response"]
        connection.close()
        if "patch" in response:
            response["patch"] = json.loads(base64.b64decode(response["patch"]))
        return response

    def _listening_port(self) -> int:
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            found = re.search(r'"event":"listening","address":\["[^"]*",(\d+)\]', (self._folder / "log").read_text())
            if found:
                return int(found[1])
            time.sleep(0.02)
        self._process.kill()
        raise RuntimeError(f"the webhook did not start: {(self._folder / 'log').read_text()}")


def _write_certificate(folder: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "morphisms demo")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (folder / "tls.crt").write_bytes(certificate.public_bytes(encoding))
    (folder / "tls.key").write_bytes(key.private_bytes(encoding, form, serialization.NoEncryption()))
