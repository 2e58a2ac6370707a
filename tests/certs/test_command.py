"""`morphisms certificates`, as an operator runs it."""

from __future__ import annotations

import socket
import ssl
import threading
from pathlib import Path

import pytest

from cli.main import main

_NAME = "morphisms-verifier.morphisms-kms.svc"


def issue(folder: Path, *names: str) -> int:
    words = ["certificates", "issue", "--ca-dir", str(folder / "ca"), "--out", str(folder / "tls")]
    return main([*words, *(word for name in names for word in ("--name", name))])


def modes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}


def test_files_are_private_and_a_client_believes_them(tmp_path: Path) -> None:
    assert issue(tmp_path, _NAME, "127.0.0.1") == 0
    assert modes(tmp_path / "ca") == {"ca.crt": 0o600, "ca.key": 0o400}
    assert modes(tmp_path / "tls") == {"tls.crt": 0o600, "tls.key": 0o400, "ca.crt": 0o600}
    handshake(tmp_path, _NAME)
    handshake(tmp_path, "127.0.0.1")
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(tmp_path, "other.morphisms-kms.svc")


def handshake(folder: Path, name: str) -> None:
    """As strictly as OpenSSL can."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "tls" / "tls.crt", folder / "tls" / "tls.key")
    client = ssl.create_default_context(cafile=str(folder / "ca" / "ca.crt"))
    client.verify_flags |= ssl.VerifyFlags.VERIFY_X509_STRICT
    ours, theirs = socket.socketpair()

    def serve() -> None:
        try:
            server.wrap_socket(theirs, server_side=True).close()
        except OSError:
            theirs.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        client.wrap_socket(ours, server_hostname=name).close()
    finally:
        ours.close()
        thread.join()


def test_a_second_certificate_is_of_the_same_authority(tmp_path: Path) -> None:
    issue(tmp_path, _NAME)
    first = (tmp_path / "ca" / "ca.crt").read_bytes(), (tmp_path / "tls" / "tls.crt").read_bytes()
    assert issue(tmp_path, _NAME) == 0
    assert (tmp_path / "ca" / "ca.crt").read_bytes() == first[0]
    assert (tmp_path / "tls" / "tls.crt").read_bytes() != first[1]
    handshake(tmp_path, _NAME)


@pytest.mark.parametrize("damage", ["ca.key", "ca.crt"])
def test_a_broken_authority_is_not_written_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    issue(tmp_path, _NAME)
    (tmp_path / "ca" / damage).unlink()
    before = (tmp_path / "tls" / "tls.crt").read_bytes()
    assert issue(tmp_path, _NAME) == 2
    assert damage in capsys.readouterr().err
    assert (tmp_path / "tls" / "tls.crt").read_bytes() == before
    assert not (tmp_path / "ca" / damage).exists()


def test_a_leaf_is_no_authority(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    issue(tmp_path, _NAME)
    for source, target in (("tls.crt", "ca.crt"), ("tls.key", "ca.key")):
        (tmp_path / "ca" / target).unlink()
        (tmp_path / "ca" / target).write_bytes((tmp_path / "tls" / source).read_bytes())
    assert issue(tmp_path, _NAME) == 2
    assert "is not a CA's certificate" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["", "UPPER.example", "a b", "x" * 254, "-a.b", "a..b"])
def test_only_names_are_names(tmp_path: Path, name: str) -> None:
    with pytest.raises(SystemExit):
        issue(tmp_path, name)
    assert not (tmp_path / "ca").exists()


def test_show_says_what_is_in_it_and_no_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    issue(tmp_path, _NAME)
    both = tmp_path / "both"
    both.write_bytes((tmp_path / "tls" / "tls.crt").read_bytes() + (tmp_path / "tls" / "tls.key").read_bytes())
    assert main(["certificates", "show", str(both)]) == 0
    out = capsys.readouterr().out
    assert f"names    {_NAME}" in out
    assert "PRIVATE" not in out
    assert main(["certificates", "show", str(tmp_path / "tls" / "tls.key")]) == 2


def test_own_ca_and_files_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    listen = ["webhook", "--listen", "127.0.0.1:0"]
    assert main(listen) == 2
    assert "--own-ca" in capsys.readouterr().err
    for words in (
        ["--own-ca", "--tls-cert", "c", "--tls-key", "k"],
        ["--own-ca", "--snapshot", "s"],
        ["--tls-cert", "c"],
    ):
        assert main([*listen, *words]) == 2
