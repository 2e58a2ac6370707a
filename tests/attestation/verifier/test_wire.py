"""The wire: what both sides say, byte for byte where it is bound, and nothing else accepted."""

from __future__ import annotations

import contextlib
import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbs import messages
from tests.support.paths import ROOT

KEY = {"kty": "EC", "crv": "P-256", "alg": "ECDH-ES+A256KW", "x": "x" * 43, "y": "y" * 43}
TOKEN = messages.VaultToken("hvs.token", 600, True, "workload", False)


def test_the_binding_is_the_canonical_json_of_three_members() -> None:
    """Written out, so that another implementation can be held against it."""
    additional = messages.write_additional_evidence("a.b.c")
    canonical = (
        '{"additional-evidence":"{\\"k8s-token\\":\\"a.b.c\\"}","nonce":"bm9uY2U=","tee-pubkey":'
        '{"alg":"ECDH-ES+A256KW","crv":"P-256","kty":"EC","x":"' + "x" * 43 + '","y":"' + "y" * 43 + '"}}'
    )
    assert messages.binding("bm9uY2U=", KEY, additional) == hashlib.sha384(canonical.encode()).digest()


def test_each_bound_member_changes_the_digest() -> None:
    base = messages.binding("n", KEY, "a")
    others = [
        messages.binding("m", KEY, "a"),
        messages.binding("n", KEY | {"x": "z" * 43}, "a"),
        messages.binding("n", KEY, "b"),
    ]
    assert len({base, *others}) == 4


def test_what_the_guest_writes_the_verifier_reads() -> None:
    messages.read_auth(messages.write_auth())
    assert messages.read_auth_answer(messages.write_auth_answer("A" * 43 + "=")) == "A" * 43 + "="
    key = messages.EphemeralKey()
    additional = messages.write_additional_evidence("a.b.c")
    read = messages.read_attest(messages.write_attest("A" * 43 + "=", key.public, {"e": 1}, additional))
    assert (read.pod_token, read.tee_pubkey, read.primary_evidence) == ("a.b.c", key.public, {"e": 1})
    assert read.digest == messages.binding("A" * 43 + "=", key.public, additional)
    believed = messages.write_attest_answer("b.e.r", "0123456789abcdef")
    assert (messages.read_attest_answer(believed), messages.read_correlation_id(believed)) == (
        "b.e.r",
        "0123456789abcdef",
    )
    assert messages.read_correlation_id(b'{"token":"b.e.r","correlation-id":"x\\ny"}') == ""
    assert messages.open_token(messages.seal_token(TOKEN, key.public, "n", "r"), key, "n", "r") == TOKEN
    error = messages.read_error(messages.write_error(messages.Problem.REFUSED, "0123456789abcdef"))
    assert error == messages.ErrorAnswer("AttestationRefused", "0123456789abcdef")


def test_the_answer_is_a_flattened_jwe_as_kbs_clients_read_it() -> None:
    key = messages.EphemeralKey()
    sealed = json.loads(messages.seal_token(TOKEN, key.public, "n", "r"))
    assert set(sealed) == {"protected", "encrypted_key", "iv", "ciphertext", "tag"}
    header, _ = key.decrypt(".".join(sealed[name] for name in messages._JWE_PARTS))
    assert (header["alg"], header["enc"], header["nonce"], header["role"]) == ("ECDH-ES+A256KW", "A256GCM", "n", "r")
    assert header["epk"]["crv"] == "P-256"


@pytest.mark.parametrize(
    "change", [{"token": 1}, {"lease_seconds": "600"}, {"lease_seconds": True}, {"renewable": 1}, {"simulated": None}]
)
def test_content_of_other_types_is_no_token(change: dict[str, Any]) -> None:
    key = messages.EphemeralKey()
    with pytest.raises(messages.WireError):
        messages.open_token(messages.seal_token(replace(TOKEN, **change), key.public, "n", "r"), key, "n", "r")


@pytest.mark.parametrize("name", ["protected", "encrypted_key", "iv", "ciphertext", "tag"])
def test_a_changed_answer_is_not_opened(name: str) -> None:
    key = messages.EphemeralKey()
    sealed = json.loads(messages.seal_token(TOKEN, key.public, "n", "r"))
    middle = len(sealed[name]) // 2
    character = "A" if sealed[name][middle] != "A" else "B"
    sealed[name] = sealed[name][:middle] + character + sealed[name][middle + 1 :]
    with pytest.raises(messages.WireError):
        messages.open_token(json.dumps(sealed).encode(), key, "n", "r")


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
    for read in (messages.read_auth, messages.read_auth_answer, messages.read_attest, messages.read_attest_answer):
        with contextlib.suppress(messages.WireError):
            read(body)
    messages.read_error(body)
    with pytest.raises(messages.WireError):
        messages.open_token(body, _KEY, "n")


_KEY = messages.EphemeralKey()


@pytest.mark.parametrize("role", ["", "a/b", "..", "a b", "é", "a" * 64, "-a"])
def test_a_role_is_a_name(role: str) -> None:
    with pytest.raises(messages.WireError):
        messages.token_path(role)


def test_secrets_are_not_in_representations() -> None:
    key = messages.EphemeralKey()
    request = messages.read_attest(messages.write_attest("A" * 43 + "=", key.public, {"e": 1}, '{"k8s-token":"a.b.c"}'))
    assert "a.b.c" not in repr(request)
    assert "AAAA" not in repr(request)
    assert "hvs.token" not in repr(TOKEN)


def test_a_pod_imports_no_server_for_it() -> None:
    """Its cold start pays for each module."""
    code = "import sys, kbs.messages; print(sorted(n for n in sys.modules if n.split('.')[0] in %r))"
    heavy = {"aiohttp", "pydantic", "hvac", "yaml", "server", "requests", "asyncio", "uvloop"}
    done = subprocess.run([sys.executable, "-c", code % heavy], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"
