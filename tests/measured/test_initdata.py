"""measured.initdata: the measured document, read more strictly than the guest does."""

from __future__ import annotations

import base64
import gzip
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from measured.initdata import InitdataError, parse_initdata, read_initdata, write_initdata

POLICY = "package agent_policy\n\ndefault ExecProcessRequest := false\n"


def _document(algorithm: str = "sha256", policy: str = POLICY, version: str = "0.1.0") -> bytes:
    return (
        f"version = \"{version}\"\nalgorithm = \"{algorithm}\"\n\n[data]\n\"policy.rego\" = '''\n{policy}'''\n".encode()
    )


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
def test_host_data_is_the_first_32_bytes_of_the_digest(algorithm: str) -> None:
    toml = _document(algorithm)
    document = read_initdata(write_initdata(toml))
    assert document.toml == toml
    assert document.host_data == hashlib.new(algorithm, toml).digest()[:32]
    assert document.files == {"policy.rego": POLICY}


def test_the_same_document_gives_the_same_annotation() -> None:
    assert write_initdata(_document()) == write_initdata(_document())


@pytest.mark.parametrize("system", [0, 3, 255])
def test_another_python_gives_the_same_annotation(monkeypatch: pytest.MonkeyPatch, system: int) -> None:
    """Python 3.11 says in gzip's header that it ran on Unix, 3.13 that it is unknown; CI compares the bytes."""
    here, compress = write_initdata(_document()), gzip.compress

    def compressed(data: bytes, level: int, *, mtime: int) -> bytes:
        found = compress(data, level, mtime=mtime)
        return found[:9] + bytes([system]) + found[10:]

    monkeypatch.setattr(gzip, "compress", compressed)
    assert write_initdata(_document()) == here
    assert base64.b64decode(here)[:10].hex() == "1f8b0800000000000203"


def _packed(toml: bytes) -> str:
    return base64.b64encode(gzip.compress(toml, mtime=0)).decode()


@pytest.mark.parametrize(
    ("encoded", "problem"),
    [
        ("", "is not gzip|is truncated"),
        ("not base64!", "is not standard base64"),
        (_packed(_document())[:-8] + "\n", "is not standard base64"),
        ("_-8=", "is not standard base64"),
        (base64.b64encode(b"plain").decode(), "is not gzip inside its base64"),
        (base64.b64encode(gzip.compress(_document(), mtime=0)[:-9]).decode(), "is truncated"),
        ("A" * (256 * 1024 + 1), "is longer than 262144 bytes"),
        (_packed(b"\0" * (4 * 1024 * 1024 + 1)), "longer than 524288 bytes unpacked"),
        (_packed(b"\xff"), "is not TOML"),
        (_packed(b"a = ["), "is not TOML"),
        (_packed(_document(version="0.2.0")), 'has a version other than "0.1.0"'),
        (_packed(_document(algorithm="md5")), "has an algorithm other than sha256, sha384, sha512; use sha256"),
        (_packed(b'version = "0.1.0"\nalgorithm = "sha256"\n'), r"has no \[data\] table of texts"),
        (_packed(b'version = "0.1.0"\nalgorithm = "sha256"\n[data]\na = 1\n'), r"has no \[data\] table of texts"),
        (_packed(_document(policy="package other\n")), "has a policy.rego without `package agent_policy`"),
        (_packed(_document(policy="# package agent_policy\n")), "has a policy.rego without `package agent_policy`"),
        (_packed(_document(policy=POLICY + "#" * 65537)), "has a policy.rego with a line over 65536 bytes"),
    ],
)
def test_problems(encoded: str, problem: str) -> None:
    with pytest.raises(InitdataError, match=problem):
        read_initdata(encoded)


def test_a_second_gzip_member_is_refused_because_other_readers_would_measure_another_document() -> None:
    one, other = gzip.compress(_document(), mtime=0), gzip.compress(b"more = 1\n", mtime=0)
    assert gzip.decompress(one + other) == _document() + b"more = 1\n"
    for more in (other, gzip.compress(b"", mtime=0), b"\0", b"tail"):
        with pytest.raises(InitdataError, match="has data after the end of its gzip stream"):
            read_initdata(base64.b64encode(one + more).decode())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"\n", b"\r\n"),
        (b"[data]\n", b'[data]\n"unknown.toml" = "x"\n'),
        (b"[data]\n", b'[data]\n"aa.toml" = "[token_configs]"\n'),
        (b"[data]\n", b'[data]\n"cdh.toml" = "[kbc]"\n'),
        (b"sha256", b"sha384"),
        (b"false", b"true"),
    ],
)
def test_any_other_byte_is_another_host_data(old: bytes, new: bytes) -> None:
    changed = _document().replace(old, new)
    assert changed != _document()
    assert parse_initdata(changed).host_data != parse_initdata(_document()).host_data


def test_a_document_needs_no_policy() -> None:
    assert parse_initdata(b'version = "0.1.0"\nalgorithm = "sha256"\n[data]\n').files == {}


@given(st.one_of(st.text(max_size=60), st.binary(max_size=60).map(lambda raw: base64.b64encode(raw).decode())))
def test_anything_else_is_an_error_of_ours(encoded: str) -> None:
    with pytest.raises(InitdataError):
        read_initdata(encoded)


@given(st.binary(max_size=200))
def test_any_document_survives_packing(toml: bytes) -> None:
    assert gzip.decompress(base64.b64decode(write_initdata(toml), validate=True)) == toml
