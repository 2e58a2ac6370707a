"""`kms attest` and `kms provision` at the wrong address: nothing is sent, and one line says what was found."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.kms.connection import addresses_of
from kbs.attested_connection import Connection, UnreachableError
from tests.cli.kms.test_references import CONFIGURATION, Desk
from tests.cli.recorded import Command
from tests.support.certificates import write_pair

SECRET = "hvs.canary-of-a-secret-id"


@pytest.fixture
def policy(tmp_path: Path, kms: Command) -> Path:
    """A policy that trusts a signer; its key is `signer.pem`."""
    path = tmp_path / "policy.yaml"
    path.write_text(Desk(tmp_path, kms).sign(1, "--new-key", configuration=CONFIGURATION).out)
    return path


@pytest.fixture
def provision(tmp_path: Path, policy: Path) -> tuple[str, ...]:
    """The arguments of `kms provision`, but for its URLs."""
    secret = tmp_path / "secret-id"
    secret.write_text(f"{SECRET}\n")
    secret.chmod(0o400)
    options = ("--policy", str(policy), "--key", str(tmp_path / "signer.pem"))
    return (*options, "--secret", f"vault-secret-id={secret}", "--timeout", "60")


class Listener:
    """A TLS server that keeps what it was sent and answers each request the same."""

    def __init__(self, folder: Path, answer: bytes) -> None:
        write_pair(folder)
        self.received = b""
        self.accepted = 0
        self._answer = answer
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"https://127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                plain, _ = self._socket.accept()
            except OSError:
                return
            self.accepted += 1
            with contextlib.suppress(OSError), self._context.wrap_socket(plain, server_side=True) as connection:
                while chunk := connection.recv(65536):
                    self.received += chunk
                    if b"\r\n\r\n" in chunk:
                        connection.sendall(self._answer)


@contextlib.contextmanager
def listener(folder: Path, status: str, body: str = "{}") -> Iterator[Listener]:
    folder.mkdir()
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nContent-Type: application/json\r\n\r\n"
    server = Listener(folder, (head + body).encode())
    try:
        yield server
    finally:
        server.close()


@pytest.mark.parametrize(
    ("status", "body", "code", "line"),
    [
        ("404 Not Found", "{}", 1, "it answers 404: it is no verifier that attests itself"),
        ("503 Service Unavailable", "{}", 3, "it answers 503: it cannot attest itself at the moment; try again"),
        ("200 OK", "{}", 1, "its answer cannot be read"),
        ("200 OK", "<html>", 1, "its answer cannot be read"),
    ],
)
def test_a_server_that_is_no_verifier_gets_no_secret(
    tmp_path: Path, kms: Command, policy: Path, provision: tuple[str, ...], status: str, body: str, code: int, line: str
) -> None:
    with listener(tmp_path / "server", status, body) as server:
        attested = kms("attest", server.url, "--policy", str(policy))
        provisioned = kms("provision", server.url, *provision)
    assert (attested.code, provisioned.code) == (code, code)
    assert line in attested.out
    assert line in provisioned.out
    assert SECRET not in attested.out + attested.err + provisioned.out + provisioned.err
    assert b"POST /attested" in server.received
    assert b"/provision" not in server.received


def test_an_address_without_a_server_is_unreachable(kms: Command, policy: Path, provision: tuple[str, ...]) -> None:
    url = "https://127.0.0.1:1"  # which the kernel gives to nobody
    assert kms("attest", url, "--policy", str(policy)).code == 3
    result = kms("provision", url, *provision)
    assert result.code == 3
    assert "refused" in result.out.lower()


def test_a_certificate_of_another_ca_ends_the_connection(tmp_path: Path, kms: Command, policy: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    write_pair(other)
    with listener(tmp_path / "server", "404 Not Found") as server:
        result = kms("attest", server.url, "--policy", str(policy), "--ca", str(other / "ca.crt"))
        assert result.code == 3
        assert "its certificate does not lead to the CA" in result.out
        trusted = kms("attest", server.url, "--policy", str(policy), "--ca", str(tmp_path / "server" / "ca.crt"))
        assert trusted.code == 1
    assert server.received.count(b"POST /attested") == 1


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (("http://127.0.0.1:1",), "URL: is not of the form https://HOST[:PORT]"),
        (
            ("https://127.0.0.1:1", "--secret", "vault-role=x"),
            "--secret: required NAME=FILE with a NAME of vault-role-id",
        ),
        (("https://127.0.0.1:1", "--secret", "tls-ca-key"), "--secret: required NAME=FILE"),
        (("https://127.0.0.1:1", "--secret", "tls-ca-key=/nowhere"), "/nowhere: cannot be read"),
    ],
)
def test_arguments_that_cannot_be_used_are_told_before_any_connection(
    kms: Command, provision: tuple[str, ...], more: tuple[str, ...], line: str
) -> None:
    result = kms("provision", *more, *provision)
    assert result.code == 2
    assert line in result.err


def test_a_secret_that_others_can_read_is_not_sent(tmp_path: Path, kms: Command, provision: tuple[str, ...]) -> None:
    (tmp_path / "secret-id").chmod(0o440)
    result = kms("provision", "https://127.0.0.1:1", *provision)
    assert result.code == 2
    assert "required 0400" in result.err


def test_a_secret_is_named_once(tmp_path: Path, kms: Command, provision: tuple[str, ...]) -> None:
    twice = ("--secret", f"vault-secret-id={tmp_path / 'secret-id'}")
    result = kms("provision", "https://127.0.0.1:1", *provision, *twice)
    assert result.code == 2
    assert "is given twice; only unseal-share may be" in result.err


def test_a_connection_that_was_closed_is_not_opened_again(tmp_path: Path) -> None:
    """What was attested was the other end of that one: a second one may be anybody's."""
    with listener(tmp_path / "server", "200 OK\r\nConnection: close") as server:
        (address,) = addresses_of(server.url)
        with Connection(address, "", 20) as connection:
            assert connection.request("GET", "/first", limit=100).status == 200
            with pytest.raises(UnreachableError, match="the connection was closed; nothing more was sent"):
                connection.request("POST", "/second", SECRET.encode(), limit=100)
    assert server.accepted == 1
    assert SECRET.encode() not in server.received
