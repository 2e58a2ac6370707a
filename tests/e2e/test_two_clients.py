"""One server, two clients: the sidecar's (http.client) and the verifier's (aiohttp) take the same answers and CAs.

Two more read CA files: that of `vault setup` (requests), and that of API servers.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from attestation.errors import PeerError
from attestation.verifier.configuration import VaultServer
from attestation.verifier.peer import Peer
from cli.vault_setup.api import open_session
from cli.vault_setup.plan import SetupError
from kbs.deadline import Deadline
from server.kubernetes.client import Client as ApiClient
from server.kubernetes.credentials import ServiceAccount
from server.kubernetes.errors import CredentialsError, KubernetesError
from sidecar.errors import SidecarError
from sidecar.http import VAULT, Client
from tests.support.certificates import builder, common_name

NAME = "vault.example"
BODY = b'{"data": "' + b"x" * 20_000 + b'"}'
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
CHUNKED = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)

# What a server, or a proxy before it, may write: each part is sent by a write of its own.
ANSWERS: dict[str, Sequence[bytes]] = {
    "kept": (b"HTTP/1.1 200 OK\r\n" + LENGTH + b"\r\n" + BODY,),
    "close, in one write": (b"HTTP/1.1 200 OK\r\nConnection: close\r\n" + LENGTH + b"\r\n" + BODY,),
    "close, head and body": (b"HTTP/1.1 200 OK\r\nConnection: close\r\n" + LENGTH + b"\r\n", BODY),
    "close, head, 1500 bytes, rest": (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", BODY[:1500], BODY[1500:]),
    "without a length": (b"HTTP/1.1 200 OK\r\n\r\n", BODY),
    "close, chunked": (b"HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n", CHUNKED),
    "1.0 with a length": (b"HTTP/1.0 200 OK\r\n" + LENGTH + b"\r\n", BODY),
    "1.0 without a length": (b"HTTP/1.0 200 OK\r\n\r\n", BODY),
    "100 before it": (b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + LENGTH + b"\r\n" + BODY),
    "103 before it": (b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n" + LENGTH + b"\r\n" + BODY,),
    "without a reason": (b"HTTP/1.1 200 \r\n" + LENGTH + b"\r\n", BODY),
    "names and values in another case": (
        b"HTTP/1.1 200 OK\r\nCONNECTION: Close\r\ncontent-LENGTH: %d\r\n\r\n" % len(BODY),
        BODY,
    ),
    "close among others": (b"HTTP/1.1 200 OK\r\nConnection: foo, close\r\n" + LENGTH + b"\r\n", BODY),
    "chunked with an extension and a trailer": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-A\r\n\r\n",
        b"%x;a=b\r\n%b\r\n0\r\nX-A: 1\r\n\r\n" % (len(BODY), BODY),
    ),
    "chunked in small chunks": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n",
        b"".join(b"1\r\n%c\r\n" % byte for byte in BODY) + b"0\r\n\r\n",
    ),
    "1.0, kept": (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n" + LENGTH + b"\r\n", BODY),
}
CUT: dict[str, Sequence[bytes]] = {
    "interim answers without end": (
        b"HTTP/1.1 103 Early Hints\r\n\r\n" * 100,
        b"HTTP/1.1 200 OK\r\n" + LENGTH + b"\r\n",
    ),
    "close, cut": (b"HTTP/1.1 200 OK\r\nConnection: close\r\n" + LENGTH + b"\r\n", BODY[:-1]),
    "chunked, cut": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", CHUNKED[:-9]),
    "nothing": (b"",),
}


@dataclass(frozen=True)
class Chain:
    """A root, an intermediate that it issues, and a leaf for NAME and 127.0.0.1; each as PEM."""

    root: str
    intermediate: str
    leaf: str
    key: bytes


def _issue(subject: str, issuer: str, key: Any, signer: Any, ca: bool) -> x509.Certificate:
    names = [x509.DNSName(NAME), x509.DNSName("localhost")]
    return (
        builder(common_name(subject), common_name(issuer), key.public_key(), until=datetime.now(UTC) + timedelta(1))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(signer, hashes.SHA256())
    )


@pytest.fixture(scope="module")
def chain() -> Chain:
    root, intermediate, leaf = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
    certificates = (
        _issue("root", "root", root, root, True),
        _issue("intermediate", "root", intermediate, root, True),
        _issue("leaf", "intermediate", leaf, intermediate, False),
    )
    pem = [each.public_bytes(serialization.Encoding.PEM).decode() for each in certificates]
    form = serialization.PrivateFormat.PKCS8
    return Chain(*pem, leaf.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))


@dataclass
class Server:
    """A TLS server that answers what it was given; `hosts` and `names` are the requests' Host headers and their SNI."""

    port: int
    answer: Sequence[bytes]
    hosts: list[str]
    names: list[str | None]


@pytest.fixture
def server(chain: Chain, tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "pair").write_bytes(chain.key + chain.leaf.encode() + chain.intermediate.encode())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "pair")
    listener = socket.create_server(("127.0.0.1", 0))
    found = Server(listener.getsockname()[1], ANSWERS["kept"], [], [])
    context.sni_callback = lambda _socket, name, _context: found.names.append(name)  # type: ignore[assignment,misc]

    def serve() -> None:
        with contextlib.suppress(OSError):  # until the listener is closed
            while True:
                plain, _ = listener.accept()
                with contextlib.suppress(OSError), context.wrap_socket(plain, server_side=True) as peer:
                    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    head = b""
                    while b"\r\n\r\n" not in head and (more := peer.recv(4096)):
                        head += more
                    found.hosts += [line[6:] for line in head.decode().split("\r\n") if line.startswith("Host: ")]
                    for part in found.answer:
                        peer.sendall(part)
                    peer.unwrap()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield found
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(5)


@pytest.fixture(autouse=True)
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    """NAME is this machine, with and without its final dot."""
    real = socket.getaddrinfo

    def look_up(host: Any, *rest: Any, **options: Any) -> Any:
        if options.get("flags", 0) & socket.AI_NUMERICHOST or host not in (NAME, f"{NAME}."):
            return real(host, *rest, **options)
        return real("127.0.0.1", *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


Ask = Callable[[str, str, Path], bytes]


def sidecars(url: str, ca: str, folder: Path) -> bytes:
    """The answer's body by the client in the guest. Raises SidecarError."""
    client = Client(VAULT, url, ca, limit=1 << 20)
    try:
        return client.call(Deadline(60), "GET", "/v1/secret").body
    finally:
        client.close()


def verifiers(url: str, ca: str, folder: Path) -> bytes:
    """The answer's body by the verifier's client. Raises PeerError."""
    (folder / "ca").write_text(ca, encoding="utf-8")

    async def ask() -> bytes:
        peer = Peer(url, folder / "ca", 60.0)
        try:
            return (await peer.request("GET", "/v1/secret")).body
        finally:
            await peer.close()

    return asyncio.run(ask())


def setups(url: str, ca: str, folder: Path) -> bytes:
    """The answer's body by the client of `vault setup`. Raises SetupError or ConnectionError."""
    (folder / "ca").write_text(ca, encoding="utf-8")
    with open_session(VaultServer(url=url, ca=folder / "ca")) as session:
        return session.get(f"{url}/v1/secret", timeout=60).content


def clusters(url: str, ca: str, folder: Path) -> bytes:
    """The answer's body by the client of an API server. Raises CredentialsError or KubernetesError."""
    (folder / "ca").write_text(ca, encoding="utf-8")

    async def ask() -> bytes:
        client = ApiClient(ServiceAccount(url, folder / "ca", None))
        try:
            return await client.read("/v1/secret", seconds=60, max_bytes=1 << 20)
        finally:
            await client.close()

    return asyncio.run(ask())


CLIENTS = pytest.mark.parametrize("ask", [sidecars, verifiers])
# Each reads a CA file that an operator has written.
READERS = pytest.mark.parametrize("ask", [sidecars, verifiers, setups, clusters])
REFUSALS = (
    SidecarError,
    PeerError,
    SetupError,
    requests.ConnectionError,
    CredentialsError,
    KubernetesError,
    ValueError,
)


@CLIENTS
@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_every_form_of_an_answer_is_read(
    server: Server, chain: Chain, tmp_path: Path, ask: Ask, answer: Sequence[bytes]
) -> None:
    server.answer = answer
    assert ask(f"https://{NAME}:{server.port}", chain.root, tmp_path) == BODY


@CLIENTS
@pytest.mark.parametrize("answer", CUT.values(), ids=CUT)
def test_an_answer_that_ends_too_early_is_no_answer(
    server: Server, chain: Chain, tmp_path: Path, ask: Ask, answer: Sequence[bytes]
) -> None:
    server.answer = answer
    with pytest.raises((SidecarError, PeerError)):
        ask(f"https://{NAME}:{server.port}", chain.root, tmp_path)


@CLIENTS
@pytest.mark.parametrize("host", [NAME, f"{NAME}.", "localhost"])
def test_an_absolute_name_is_the_name(server: Server, chain: Chain, tmp_path: Path, ask: Ask, host: str) -> None:
    assert ask(f"https://{host}:{server.port}", chain.root, tmp_path) == BODY
    assert server.names == [host.rstrip(".")], "RFC 6066: no dot at the end of a name in SNI"
    # As given by the sidecar; aiohttp leaves out the dot here too.
    assert server.hosts == [f"{host if ask is sidecars else host.rstrip('.')}:{server.port}"]


@CLIENTS
def test_a_dot_makes_no_other_name_trusted(server: Server, chain: Chain, tmp_path: Path, ask: Ask) -> None:
    with pytest.raises((SidecarError, PeerError)):
        ask(f"https://127.0.0.1:{server.port}", chain.root, tmp_path)


def _cas(chain: Chain) -> dict[str, str]:
    return {
        "root": chain.root,
        "intermediate alone": chain.intermediate,
        "both": chain.root + chain.intermediate,
        "leaf alone": chain.leaf,
        "comment that is not ASCII": f"# Zertifizierungsstelle für Überprüfungen\n{chain.root}# 認証局\n",
        "comment beside an intermediate": f"# é\n{chain.intermediate}",
        "byte order mark": f"\ufeff{chain.root}",
        "lines end in CR LF": chain.root.replace("\n", "\r\n"),
        "no line end": chain.root.rstrip("\n"),
        "attributes of openssl pkcs12": f"Bag Attributes\n    friendlyName: Ünïcode\nsubject=CN = root\n{chain.root}",
    }


@READERS
@pytest.mark.parametrize("form", _cas(Chain("", "", "", b"")))
def test_a_ca_is_trusted_however_it_is_written(
    server: Server, chain: Chain, tmp_path: Path, ask: Ask, form: str
) -> None:
    assert ask(f"https://{NAME}:{server.port}", _cas(chain)[form], tmp_path) == BODY


@pytest.mark.parametrize("ask", [sidecars, verifiers, setups])
@pytest.mark.parametrize(
    "damage", ["none", "body", "end", "other", "one of two cut off", "one of two in OpenSSL's own form"]
)
def test_a_ca_that_is_none_is_refused(server: Server, chain: Chain, tmp_path: Path, ask: Ask, damage: str) -> None:
    texts = {
        "none": "# für später",
        "body": chain.root.replace("\nMII", "\nMéI"),
        "end": chain.root.replace("-----END", "-----ENDE"),
        "other": chain.key.decode(),
        "one of two cut off": chain.root + chain.intermediate[:200],
        "one of two in OpenSSL's own form": chain.root
        + chain.intermediate.replace("CERTIFICATE", "TRUSTED CERTIFICATE"),
    }
    with pytest.raises(REFUSALS) as caught:
        ask(f"https://{NAME}:{server.port}", texts[damage], tmp_path)
    assert not server.hosts
    if isinstance(caught.value, SidecarError):
        assert caught.value.reason is VAULT.ca


@READERS
def test_a_foreign_intermediate_is_not_trusted(server: Server, tmp_path: Path, ask: Ask) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    foreign = _issue("intermediate", "root", key, key, True).public_bytes(serialization.Encoding.PEM).decode()
    with pytest.raises(REFUSALS):
        ask(f"https://{NAME}:{server.port}", foreign, tmp_path)
