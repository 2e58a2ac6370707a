import asyncio
import contextlib
import json
import os
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvloop

from server.health import Check
from server.limits import Limits
from server.messages import Handler
from server.service import Application, Service
from server.tls import CertificateFiles
from tests.support.certificates import make_pair
from tests.support.until import SECONDS

# A machine that stops for some seconds must not look like a slow client, a late handler or a lagging loop.
PATIENCE = {
    "lag_seconds": 600.0,
    "deadline_seconds": 600.0,
    "header_seconds": 600.0,
    "body_seconds": 600.0,
    "finish_seconds": 600.0,
}
FIXTURE_LIMITS = PATIENCE | {"lame_duck_seconds": 0.1, "drain_idle_seconds": 0.3}


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop that production has: its TLS is another implementation than asyncio's."""
    return {"uvloop": uvloop.new_event_loop}


@dataclass(frozen=True)
class Pair:
    """A self-signed serving certificate for localhost and 127.0.0.1, as PEM."""

    chain: bytes
    key: bytes

    def write(self, folder: Path) -> CertificateFiles:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "tls.crt").write_bytes(self.chain)
        (folder / "tls.key").write_bytes(self.key)
        return CertificateFiles(folder / "tls.crt", folder / "tls.key", interval=0.05)

    @property
    def der(self) -> bytes:
        return ssl.PEM_cert_to_DER_cert(self.chain.decode())


def _pair(kind: str = "ec") -> Pair:
    return Pair(*make_pair(kind))


@pytest.fixture(scope="session")
def new_pair() -> Callable[..., Pair]:
    """`new_pair("ec" | "rsa")`: a fresh certificate and key."""
    return _pair


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


class Client:
    """One raw connection: what a test sends is what goes out."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(
        cls, address: tuple[str, int], *, tls: bool = True, local_addr: tuple[str, int] | None = None, **versions: Any
    ) -> "Client":
        context = None
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            for name, value in versions.items():
                setattr(context, name, value)
        return cls(*await asyncio.open_connection(*address, ssl=context, local_addr=local_addr))

    @property
    def certificate(self) -> bytes:
        return self.writer.get_extra_info("ssl_object").getpeercert(True)

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def receive(self) -> Answer:
        async with asyncio.timeout(SECONDS):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:] if line)}
            body = await self.reader.readexactly(int(headers.get("content-length", 0)))
        return Answer(int(head[0].split()[1]), headers, body)

    async def request(self, method: str, path: str, body: bytes = b"", headers: str = "") -> Answer:
        length = f"Content-Length: {len(body)}\r\n" if body or method == "POST" else ""
        await self.send(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{length}{headers}\r\n".encode() + body)
        return await self.receive()

    async def closed(self, seconds: float = SECONDS) -> bool:
        """Whether the server ends the connection, without another byte, within `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                return await self.reader.read(1) == b""
        except TimeoutError:
            return False
        except (ConnectionError, ssl.SSLError):
            return True

    def close(self) -> None:
        self.writer.close()


@pytest.fixture
async def connect() -> AsyncIterator[Callable[..., Any]]:
    """`await connect(address, tls=True)`: a raw client; all are closed at the end."""
    clients: list[Client] = []

    async def open_(address: tuple[str, int], **options: Any) -> Client:
        client = await Client.connect(address, **options)
        clients.append(client)
        return client

    yield open_
    for client in clients:
        client.close()


@pytest.fixture
async def serve(tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    """`await serve(routes, limits={...}, gates=..., ...)`: a started Service over real TLS on a port of its own."""
    running: list[Service] = []

    async def start(
        routes: dict[tuple[str, str], Handler],
        *,
        limits: dict[str, Any] | None = None,
        gates: dict[str, Check] | None = None,
        certificate: CertificateFiles | None = None,
        listen: tuple[str, int] = ("127.0.0.1", 0),
        **more: Any,
    ) -> Service:
        service = Service(
            Application(
                routes=routes,
                listen=listen,
                certificate=certificate or _pair().write(tmp_path / "tls"),
                limits=Limits(**(FIXTURE_LIMITS | (limits or {}))),
                gates=gates or {},
                **more,
            )
        )
        await service.start()
        running.append(service)
        return service

    yield start
    for service in running:
        service.stop()
        service.stop()
        async with asyncio.timeout(SECONDS):
            await service.wait()


PROGRAM = """
import asyncio, json, sys
from pathlib import Path
from server.limits import Limits
from server.messages import Response
from server.service import Application, run
from server.tls import CertificateFiles

async def echo(body, info):
    await asyncio.sleep(0.005)
    return Response(200, body)

folder = Path(sys.argv[1])
sys.exit(run(lambda: Application(
    routes={("POST", "/echo"): echo},
    listen=("127.0.0.1", 0),
    metrics_listen=("127.0.0.1", 0),
    certificate=CertificateFiles(folder / "tls.crt", folder / "tls.key"),
    limits=Limits(**json.loads(sys.argv[2])),
)))
"""


@pytest.fixture
def process() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """`process(folder, lame_duck)`: an echo server as a process of its own, with JSON logs on its stderr.

    `folder` has tls.crt and tls.key; `lame_duck` is in seconds.
    """
    started: list[subprocess.Popen[str]] = []

    def start(folder: Path, lame_duck: float = 1.0) -> subprocess.Popen[str]:
        # An unfinished body comes to its time limit while a test looks on; one that is sent in one piece never does.
        limits = FIXTURE_LIMITS | {"lame_duck_seconds": lame_duck, "body_seconds": 5.0}
        command = [sys.executable, "-c", PROGRAM, str(folder), json.dumps(limits)]
        child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=dict(os.environ))
        started.append(child)
        return child

    yield start
    for child in started:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        child.wait(SECONDS)
        assert child.stderr is not None
        child.stderr.close()
