"""The text that brings secrets into a verifier: who may write it, what it says, and what its reader refuses."""

from __future__ import annotations

import base64
import hmac
import json
from typing import Any

import pytest
from joserfc import jws
from joserfc.jwk import ECKey

from kbs.messages import WireError
from kbs.provision import (
    CONTEXT,
    MAX_PROVISION_SIZE,
    MAX_SECRET_SIZE,
    Outcome,
    ProvisionErrorType,
    ProvisionState,
    SecretName,
    StrangerError,
    Unsealing,
    read_provision,
    read_provision_error,
    read_provision_state,
    read_provisioner,
    write_provision,
    write_provision_error,
    write_provision_state,
)

SPKI = bytes(range(32))
NONCE = "A" * 43 + "="
SECRETS = {SecretName.VAULT_ROLE_ID: "role", SecretName.VAULT_SECRET_ID: "canary-secret-id"}


@pytest.fixture(scope="module")
def key() -> ECKey:
    return ECKey.generate_key("P-256")


def public(key: ECKey) -> dict[str, Any]:
    return dict(key.as_dict(private=False))


def signed(key: ECKey, changes: dict[str, Any], *, header: dict[str, Any] | None = None) -> bytes:
    """A payload with these members changed; None removes one."""
    payload = {
        "context": CONTEXT,
        "spki": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8",
        "nonce": NONCE,
        "secrets": {"vault-role-id": "role"},
    } | changes
    payload = {name: value for name, value in payload.items() if value is not None}
    registry = jws.JWSRegistry(strict_check_header=False)
    text = json.dumps(payload).encode()
    return jws.serialize_compact(
        header or {"alg": "ES256"}, text, key, algorithms=["ES256"], registry=registry
    ).encode()


def test_a_provisioners_text_is_read_back(key: ECKey) -> None:
    other = read_provisioner(public(ECKey.generate_key("P-256")))
    request = read_provision(write_provision(key, SPKI, NONCE, SECRETS), [other, read_provisioner(public(key))])
    assert (request.spki, request.nonce, request.secrets) == (SPKI, NONCE, SECRETS)
    assert request.signer == key.thumbprint()
    assert "canary" not in repr(request)
    assert NONCE not in repr(request)


def test_a_stranger_is_told_apart_from_a_broken_text(key: ECKey) -> None:
    stranger = ECKey.generate_key("P-256")
    with pytest.raises(StrangerError):
        read_provision(write_provision(stranger, SPKI, NONCE, SECRETS), [read_provisioner(public(key))])
    with pytest.raises(StrangerError):
        read_provision(write_provision(key, SPKI, NONCE, SECRETS), [])


def test_a_changed_text_is_a_strangers(key: ECKey) -> None:
    head, payload, signature = write_provision(key, SPKI, NONCE, SECRETS).split(b".")
    other = signed(key, {"secrets": {"vault-role-id": "mallory"}}).split(b".")[1]
    for body in (b".".join((head, other, signature)), b".".join((head, payload, signature[::-1]))):
        with pytest.raises(StrangerError):
            read_provision(body, [read_provisioner(public(key))])


def test_the_provisioners_public_key_is_no_password(key: ECKey) -> None:
    """An HMAC by the text of the public key, and no signature at all, are a stranger's."""
    signing_input = b"eyJhbGciOiJIUzI1NiJ9.e30"  # {"alg":"HS256"} and {}
    mac = hmac.digest(key.as_pem(private=False), signing_input, "sha256")
    forged = signing_input + b"." + base64.urlsafe_b64encode(mac).rstrip(b"=")
    unsigned = b"eyJhbGciOiJub25lIn0.e30."
    for body in (forged, unsigned):
        with pytest.raises(StrangerError):
            read_provision(body, [read_provisioner(public(key))])


@pytest.mark.parametrize(
    "header", [{"alg": "ES256", "crit": ["b64"], "b64": True}, {"alg": "ES256", "jwk": {"kty": "EC"}}], ids=str
)
def test_a_header_with_more_than_its_algorithm_is_refused(key: ECKey, header: dict[str, Any]) -> None:
    with pytest.raises(WireError):
        read_provision(signed(key, {}, header=header), [read_provisioner(public(key))])


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"context": "morphisms-references/v1"}, "context is not"),
        ({"context": None}, "other members"),
        ({"extra": 1}, "other members"),
        ({"spki": "AAEC"}, "spki"),
        ({"nonce": "short"}, "nonce"),
        ({"nonce": 1}, "nonce"),
        ({"secrets": {}}, "empty"),
        ({"secrets": ["vault-role-id"]}, "not an object"),
        ({"secrets": {"vault_role_id": "canary"}}, "other members"),
        ({"secrets": {"vault-token": "canary"}}, "other members"),
        ({"secrets": {"vault-role-id": ""}}, "vault-role-id"),
        ({"secrets": {"vault-role-id": {"canary": 1}}}, "vault-role-id"),
        ({"secrets": {"vault-role-id": "canary" * MAX_SECRET_SIZE}}, "bytes|characters"),
        ({"secrets": {"vault-role-id": "canäry"}}, "vault-role-id"),
    ],
    ids=str,
)
def test_a_provisioners_mistake_is_named_without_a_value(key: ECKey, changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(WireError, match=problem) as caught:
        read_provision(signed(key, changes), [read_provisioner(public(key))])
    assert "can" not in str(caught.value).replace("cannot", "")


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"a.b", b"a.b.c.d", b"\xff.b.c", b"." * 3, b"x" * (MAX_PROVISION_SIZE + 1)]
)
def test_what_is_not_a_compact_jws_is_refused(key: ECKey, body: bytes) -> None:
    with pytest.raises(WireError):
        read_provision(body, [read_provisioner(public(key))])


@pytest.mark.parametrize(
    "change",
    [{"kty": "RSA"}, {"crv": "P-384"}, {"d": "A" * 43}, {"x": "A" * 43}, {"x": "short"}, {"x": None}, {"y": 1}],
    ids=str,
)
def test_a_jwk_that_is_not_a_public_p256_key_is_not_a_provisioner(key: ECKey, change: dict[str, Any]) -> None:
    with pytest.raises(WireError):
        read_provisioner(public(key) | change)


def test_a_private_key_on_another_curve_signs_nothing() -> None:
    with pytest.raises(WireError, match="P-256"):
        write_provision(ECKey.generate_key("P-384"), SPKI, NONCE, SECRETS)


@pytest.mark.parametrize(
    "state",
    [
        ProvisionState(True, tuple(SecretName), Unsealing(True, 1, 2), nonce=NONCE),
        ProvisionState(False, (), None, outcomes={SecretName.SIGNING_KEY: Outcome.UNCHANGED}),
    ],
    ids=["sealed", "unsealed"],
)
def test_a_state_is_read_back(state: ProvisionState) -> None:
    assert read_provision_state(write_provision_state(state)) == state


@pytest.mark.parametrize(
    "change",
    [
        {"context": "other"},
        {"sealed": 1},
        {"missing": "vault-role-id"},
        {"missing": ["vault-token"]},
        {"unsealing": {"sealed": True}},
        {"nonce": ""},
        {"outcomes": {"signing-key": "stolen"}},
    ],
    ids=str,
)
def test_an_answer_of_something_else_is_refused(change: dict[str, Any]) -> None:
    document = json.loads(write_provision_state(ProvisionState(True, ())))
    with pytest.raises(WireError):
        read_provision_state(json.dumps(document | change).encode())


def test_a_refusal_is_read_back_and_a_strange_one_is_empty() -> None:
    body = write_provision_error(ProvisionErrorType.OTHER_VALUE, "signing-key: another value is held", "0" * 16)
    error = read_provision_error(body)
    assert (error.problem, error.correlation_id) == (ProvisionErrorType.OTHER_VALUE, "0" * 16)
    assert error.detail == "signing-key: another value is held"
    assert read_provision_error(b"<html>").problem == ""
    terminal = json.dumps({"type": "x", "detail": "\x1b[2J", "correlation-id": 1}).encode()
    assert read_provision_error(terminal).detail == ""
