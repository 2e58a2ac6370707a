"""A webhook as users run it: a process of its own, over TLS."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.certificates import write_pair
from tests.support.paths import ROOT
from tests.support.processes import listening_ports, log_lines, morphisms, running
from tests.support.until import SECONDS

CLUSTER = ROOT / "tests" / "webhook" / "golden" / "cluster.yaml"


@dataclass
class Webhook:
    """A running webhook. `folder` holds its log, `certificate` its certificate, key and CA."""

    process: subprocess.Popen[bytes]
    folder: Path
    certificate: Path
    port: int
    metrics_port: int

    def connect(self) -> http.client.HTTPSConnection:
        """A connection that trusts the certificate of the moment."""
        context = ssl.create_default_context(cafile=str(self.certificate / "ca.crt"))
        return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=60, context=context)

    def post(self, path: str, body: bytes, connection: http.client.HTTPSConnection | None = None) -> tuple[int, bytes]:
        """(status, body) of one answer."""
        own = connection or self.connect()
        own.request("POST", path, body, {"Content-Type": "application/json"})
        answer = own.getresponse()
        result = answer.status, answer.read()
        if connection is None:
            own.close()
        return result

    def get(self, path: str) -> tuple[int, str]:
        """(status, text) from the plain metrics listener."""
        connection = http.client.HTTPConnection("127.0.0.1", self.metrics_port, timeout=60)
        connection.request("GET", path)
        answer = connection.getresponse()
        result = answer.status, answer.read().decode()
        connection.close()
        return result

    def log(self) -> list[dict[str, Any]]:
        """What it has logged so far."""
        return log_lines(self.folder / "log")

    def terminate(self) -> int:
        """SIGTERM, then its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(SECONDS)


@contextlib.contextmanager
def webhook(
    folder: Path, *arguments: object, environment: dict[str, str] | None = None, certificate: Path | None = None
) -> Iterator[Webhook]:
    """A webhook process that listens; killed at the end if it still runs.

    `certificate`: the folder with the pair that it serves; by default `folder`, which gets a new pair.
    """
    folder.mkdir(exist_ok=True)
    if certificate is None:
        certificate = folder
        write_pair(folder)
    command = morphisms("webhook", "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", *arguments)
    command += ["--tls-cert", str(certificate / "tls.crt"), "--tls-key", str(certificate / "tls.key")]
    with running(command, folder / "log", environment={**os.environ, **(environment or {})}) as process:
        yield Webhook(process, folder, certificate, *listening_ports(process, folder / "log"))
