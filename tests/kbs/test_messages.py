"""The messages of both halves: byte for byte where REPORT_DATA binds them, and every other form refused."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import subprocess
import sys
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from kbs.base64url import encode
from kbs.ephemeral_key import EphemeralKey
from kbs.guest import (
    ErrorAnswer,
    open_token,
    read_attest_answer,
    read_auth_answer,
    read_correlation_id,
    read_error,
    token_path,
    write_additional_evidence,
    write_attest,
    write_auth,
)
from kbs.messages import (
    JWE_PARTS,
    MAX_ATTEST_SIZE,
    MAX_INITDATA_SIZE,
    ErrorType,
    VaultToken,
    WireError,
    binding,
)
from kbs.verifier import read_attest, read_auth, seal_token, write_attest_answer, write_auth_answer, write_error
from tests.support.paths import ROOT

KEY = {"kty": "EC", "crv": "P-256", "alg": "ECDH-ES+A256KW", "x": "x" * 43, "y": "y" * 43}
TOKEN = VaultToken("hvs.token", 600, True, "workload", False)


def test_the_binding_is_the_canonical_json_of_three_members() -> None:
    """Written out, so that another implementation can be held against it."""
    additional = write_additional_evidence("a.b.c")
    canonical = (
        '{"additional-evidence":"{\\"k8s-token\\":\\"a.b.c\\"}","nonce":"bm9uY2U=","tee-pubkey":'
        '{"alg":"ECDH-ES+A256KW","crv":"P-256","kty":"EC","x":"' + "x" * 43 + '","y":"' + "y" * 43 + '"}}'
    )
    assert binding("bm9uY2U=", KEY, additional) == hashlib.sha384(canonical.encode()).digest()


_ASCII = st.text(st.characters(codec="ascii"), max_size=40)


@given(_ASCII, st.dictionaries(_ASCII, _ASCII, max_size=6), _ASCII)
def test_the_binding_is_canonical_for_all_text_that_a_message_may_hold(
    nonce: str, key: dict[str, str], additional: str
) -> None:
    canonical = rfc8785.dumps({"additional-evidence": additional, "nonce": nonce, "tee-pubkey": {**key}})
    assert binding(nonce, key, additional) == hashlib.sha384(canonical).digest()


def test_each_bound_member_changes_the_digest() -> None:
    base = binding("n", KEY, "a")
    others = [
        binding("m", KEY, "a"),
        binding("n", KEY | {"x": "z" * 43}, "a"),
        binding("n", KEY, "b"),
    ]
    assert len({base, *others}) == 4


def test_what_the_guest_writes_the_verifier_reads() -> None:
    read_auth(write_auth())
    assert read_auth_answer(write_auth_answer("A" * 43 + "=")) == "A" * 43 + "="
    key = EphemeralKey()
    additional = write_additional_evidence("a.b.c")
    read = read_attest(write_attest("A" * 43 + "=", key.public, {"e": 1}, additional))
    assert (read.pod_token, read.tee_pubkey, read.primary_evidence) == ("a.b.c", key.public, {"e": 1})
    assert read.digest == binding("A" * 43 + "=", key.public, additional)
    believed = write_attest_answer("b.e.r", "0123456789abcdef")
    assert (read_attest_answer(believed), read_correlation_id(believed)) == (
        "b.e.r",
        "0123456789abcdef",
    )
    assert read_correlation_id(b'{"token":"b.e.r","correlation-id":"x\\ny"}') == ""
    for token in (TOKEN, TOKEN._replace(vault_ca="-----BEGIN CERTIFICATE-----")):
        assert open_token(seal_token(token, key.public, "n", "r"), key, "n", "r") == token
    error = read_error(write_error(ErrorType.REFUSED, "0123456789abcdef"))
    assert error == ErrorAnswer("AttestationRefused", "0123456789abcdef")


def test_the_answer_is_a_flattened_jwe_as_kbs_clients_read_it() -> None:
    key = EphemeralKey()
    sealed = json.loads(seal_token(TOKEN, key.public, "n", "r"))
    assert set(sealed) == {"protected", "encrypted_key", "iv", "ciphertext", "tag"}
    header, _ = key.decrypt(*(sealed[name] for name in JWE_PARTS))
    assert (header["alg"], header["enc"], header["nonce"], header["role"]) == ("ECDH-ES+A256KW", "A256GCM", "n", "r")
    assert header["epk"]["crv"] == "P-256"


def test_the_header_is_as_cocos_clients_write_it_again() -> None:
    """They authenticate what they write from the parsed header: alg, enc, then the others sorted (kbs-types)."""
    sealed = json.loads(seal_token(TOKEN, EphemeralKey().public, "a/b+c=", "r"))
    text = base64.urlsafe_b64decode(sealed["protected"] + "==").decode()
    members = json.loads(text)
    others = {name: members[name] for name in sorted(members) if name not in ("alg", "enc")}
    others["epk"] = dict(sorted(others["epk"].items()))
    again = {"alg": members["alg"], "enc": members["enc"], **others}
    assert text == json.dumps(again, separators=(",", ":"))


_P = 2**256 - 2**224 + 2**192 + 2**96 - 1  # the field's prime, FIPS 186-4, D.1.2.3
# The point with x = 5: so small a number has room for the prime to be added in 256 bits.
_Y = 31468013646237722594854082025316614106172411895747863909393730389177298123724


def _jwk(x: int, y: int) -> dict[str, str]:
    return KEY | {name: encode(value.to_bytes(32)) for name, value in (("x", x), ("y", y))}


@pytest.mark.parametrize(
    ("key", "is_point"),
    [
        (_jwk(5, _Y), True),
        (_jwk(5, _P - _Y), True),
        (_jwk(5, _Y - 1), False),
        (_jwk(0, 0), False),
        (_jwk(5 + _P, _Y), False),
        (_jwk(_P, _Y), False),
        (_jwk(2**256 - 1, 2**256 - 1), False),
        # The last character has two bits to spare: with them set it is another text for the same number.
        (_jwk(5, _Y) | {"x": _jwk(5, _Y)["x"][:-1] + "V"}, False),
    ],
)
def test_a_key_is_a_point_of_the_curve_in_its_one_spelling(key: dict[str, str], is_point: bool) -> None:
    body = write_attest("bm9uY2Vub25jZW5vbmNl", key, {}, "")
    with contextlib.nullcontext() if is_point else pytest.raises(WireError, match="tee-pubkey is not a point"):
        assert read_attest(body).tee_pubkey == key


def test_a_guests_own_agent_sends_no_pod_token() -> None:
    """Its additional evidence is the empty text, and what it binds is exactly that."""
    key = EphemeralKey()
    body = write_attest("bm9uY2Vub25jZW5vbmNl", key.public, {}, "")
    request = read_attest(body)
    assert (request.pod_token, request.additional_evidence) == ("", "")
    assert request.digest == binding("bm9uY2Vub25jZW5vbmNl", key.public, "")


@pytest.mark.parametrize(
    "change",
    [
        {"token": 1},
        {"lease_seconds": "600"},
        {"lease_seconds": True},
        {"renewable": 1},
        {"simulated": None},
        {"vault_ca": 1},
    ],
)
def test_content_of_other_types_is_no_token(change: dict[str, Any]) -> None:
    key = EphemeralKey()
    with pytest.raises(WireError):
        open_token(seal_token(TOKEN._replace(**change), key.public, "n", "r"), key, "n", "r")


@pytest.mark.parametrize("name", ["protected", "encrypted_key", "iv", "ciphertext", "tag"])
def test_a_changed_answer_is_not_opened(name: str) -> None:
    key = EphemeralKey()
    sealed = json.loads(seal_token(TOKEN, key.public, "n", "r"))
    middle = len(sealed[name]) // 2
    character = "A" if sealed[name][middle] != "A" else "B"
    sealed[name] = sealed[name][:middle] + character + sealed[name][middle + 1 :]
    with pytest.raises(WireError):
        open_token(json.dumps(sealed).encode(), key, "n", "r")


def attest_with(**members: Any) -> bytes:
    body = json.loads(write_attest("A" * 43 + "=", EphemeralKey().public, {"e": 1}, write_additional_evidence("a.b.c")))
    return json.dumps(body | {name.replace("_", "-"): value for name, value in members.items()}).encode()


@pytest.mark.parametrize("document", ["version = 1\n", 'say = "{[\\\\n]}"\n' * 10_000, "\U0001f512é", "[" * 5_000])
def test_a_document_is_read_as_it_was_sent(document: str) -> None:
    for pretty in (None, 2):
        sent = json.loads(attest_with(init_data={"format": "toml", "body": document}))
        read = read_attest(json.dumps(sent, indent=pretty).encode())
        assert read.initdata == document.encode()
    assert read_attest(attest_with()).initdata is None
    assert read_attest(attest_with(init_data=None)).initdata is None


@pytest.mark.parametrize(
    "members",
    [
        {"init_data": "x"},
        {"init_data": {"format": "json", "body": "x"}},
        {"init_data": {"format": "toml"}},
        {"init_data": {"format": "toml", "body": ""}},
        {"init_data": {"format": "toml", "body": 1}},
        {"init_data": {"format": "toml", "body": "x", "more": 1}},
        {"init_data": {"format": "toml", "body": "\ud800"}},
        {"init_data": {"format": "toml", "body": "x" * (MAX_INITDATA_SIZE + 1)}},
        {"init_data": {"format": "toml", "body": "\n" * 270_000}},
        {"init_data": {"format": "toml", "body": "x"}, "more": "x" * MAX_ATTEST_SIZE},
        {"more": {"init-data": {"format": "toml", "body": "x"}}, "other": "x" * MAX_ATTEST_SIZE},
        {"more": [[]] * 1_100},
        {"more": [{}] * 1_100},
        {"more": ["x"] * 2_100},
    ],
)
def test_more_than_a_document_and_evidence_is_refused(members: dict[str, Any]) -> None:
    with pytest.raises(WireError) as caught:
        read_attest(attest_with(**members))
    assert "x" * 10 not in str(caught.value)


@given(
    st.binary(max_size=200)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["nonce", "token", "runtime-data", "tee-evidence", "tee-pubkey", "type", "protected"]),
                inner,
            )
        ),
        max_leaves=12,
    ).map(lambda value: json.dumps(value).encode())
)
def test_any_bytes_are_read_or_a_wire_error(body: bytes) -> None:
    for read in (read_auth, read_auth_answer, read_attest, read_attest_answer):
        with contextlib.suppress(WireError):
            read(body)
    read_error(body)
    with pytest.raises(WireError):
        open_token(body, _KEY, "n")


_KEY = EphemeralKey()


@pytest.mark.parametrize("role", ["", "a/b", "..", "a b", "é", "a" * 64, "-a"])
def test_a_role_is_a_name(role: str) -> None:
    with pytest.raises(WireError):
        token_path(role)


def test_secrets_are_not_in_representations() -> None:
    key = EphemeralKey()
    request = read_attest(write_attest("A" * 43 + "=", key.public, {"e": 1}, '{"k8s-token":"a.b.c"}'))
    assert "a.b.c" not in repr(request)
    assert "AAAA" not in repr(request)
    assert "hvs.token" not in repr(TOKEN)


@pytest.mark.parametrize(("half", "other"), [("guest", "verifier"), ("verifier", "guest")])
def test_a_half_imports_neither_a_server_nor_the_other_half(half: str, other: str) -> None:
    """A pod's cold start pays for each module."""
    code = "import sys, kbs.%s; print(sorted(n for n in sys.modules if n == %r or n.split('.')[0] in %r))"
    heavy = {"aiohttp", "pydantic", "hvac", "yaml", "server", "requests", "asyncio", "uvloop"}
    program = code % (half, f"kbs.{other}", heavy)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"
