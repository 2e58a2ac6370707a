"""A real OpenBao with a TLS listener beside its plain one: the sidecar takes the first, the set-up the second."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.support.certificates import write_pair
from tests.support.openbao import ROOT_TOKEN, OpenBao, binary

_LISTENER = 'listener "tcp" {{ address = "127.0.0.1:{port}" tls_cert_file = "{cert}" tls_key_file = "{key}" }}'


class TlsOpenBao(OpenBao):
    """A running server; `tls_port` and `ca` are what a plan is given."""

    tls_port: int
    ca: str


@contextlib.contextmanager
def tls_openbao(folder: Path) -> Iterator[TlsOpenBao]:
    """A server that answers on both listeners; killed at the end."""
    write_pair(folder)
    port, tls_port = _free_port(), _free_port()
    listener = _LISTENER.format(port=tls_port, cert=folder / "tls.crt", key=folder / "tls.key")
    (folder / "tls.hcl").write_text(listener.replace(" tls_", "\n tls_").replace("{ ", "{\n ").replace(" }", "\n}"))
    command = [binary(), "server", "-dev", "-dev-no-store-token", f"-dev-root-token-id={ROOT_TOKEN}"]
    command += [f"-dev-listen-address=127.0.0.1:{port}", f"-config={folder / 'tls.hcl'}"]
    with (folder / "openbao.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={"HOME": str(folder)})
    try:
        server = TlsOpenBao(process, port)
        server.tls_port, server.ca = tls_port, (folder / "ca.crt").read_text()
        _wait(server, folder / "openbao.log")
        yield server
    finally:
        process.kill()
        process.wait()


def _wait(server: TlsOpenBao, log: Path) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and server.process.poll() is None:
        with contextlib.suppress(OSError):
            status, mounts = server.call("GET", "sys/mounts")
            if status == 200 and "secret/" in mounts["data"]:
                socket.create_connection(("127.0.0.1", server.tls_port), 5).close()
                return
        time.sleep(0.05)
    raise RuntimeError(f"OpenBao did not start: {log.read_text()}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
