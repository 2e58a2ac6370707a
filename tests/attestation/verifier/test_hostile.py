"""Bodies that nobody should send: answered with 4xx in KBS's shape, and the verifier goes on."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from attestation.simulator.device import Device
from kbs.guest import write_additional_evidence
from kbs.messages import ATTEST_PATH, AUTH_PATH, MAX_ATTEST_SIZE, TOKEN_PATH
from tests.attestation.reports import UNREAD_ENTRIES
from tests.attestation.verifier.guest import Client
from tests.attestation.verifier.process import Verifier
from tests.attestation.verifier.test_refusals import Guest
from tests.attestation.verifier.tokens import Issuer

DEEP = b"[" * 100_000
SHAPES: dict[str, bytes] = {
    "empty": b"",
    "not JSON": b"\x00\xff",
    "a list": b"[]",
    "null": b"null",
    "a number": b"1e999",
    "not a number": b'{"version":NaN}',
    "a huge number": b'{"version":' + b"9" * 50_000 + b"}",
    "deep": DEEP,
    "deep objects": b'{"a":' * 50_000,
    "twice": b'{"version":"0.4.0","version":"0.4.0","tee":"snp"}',
    "surrogate": b'{"version":"\\ud800","tee":"snp"}',
    "another version": b'{"version":"0.1.0","tee":"snp"}',
    "another tee": b'{"version":"0.4.0","tee":"tdx"}',
    "no common hash": b'{"version":"0.4.0","tee":"snp","extra-params":{"supported-hash-algorithms":["md5"]}}',
    "hashes are no list": b'{"version":"0.4.0","tee":"snp","extra-params":{"supported-hash-algorithms":{"sha384":1}}}',
    "too large": b" " * (MAX_ATTEST_SIZE + 1),
}


@pytest.fixture
def client(running: Verifier) -> Iterator[Client]:
    client = running.client()
    yield client
    client.close()


@pytest.mark.parametrize("path", [AUTH_PATH, ATTEST_PATH])
@pytest.mark.parametrize("name", SHAPES)
def test_a_wrong_shape_is_an_invalid_request(client: Client, path: str, name: str) -> None:
    answer = client.call("POST", path, SHAPES[name])
    assert answer.status in (400, 413)
    assert answer.error.problem == "InvalidRequest"
    assert answer.error.correlation_id


Change = Callable[[dict[str, Any]], None]


def _set(*path: str, to: Any) -> Change:
    def change(body: dict[str, Any]) -> None:
        target = body
        for name in path[:-1]:
            target = target[name]
        target[path[-1]] = to

    return change


RUNTIME, EVIDENCE = "runtime-data", "tee-evidence"
KEY = (RUNTIME, "tee-pubkey")
ZERO = "A" * 43
CHANGES: dict[str, Change] = {
    "no nonce": _set(RUNTIME, "nonce", to=None),
    "long nonce": _set(RUNTIME, "nonce", to="A" * 10_000),
    "more runtime data": _set(RUNTIME, "more", to=1),
    "no key": _set(*KEY, to=None),
    "private key": _set(*KEY, "d", to=ZERO),
    "RSA key": _set(*KEY, to={"kty": "RSA", "n": ZERO, "e": "AQAB", "alg": "RSA-OAEP-256"}),
    "weak algorithm": _set(*KEY, "alg", to="RSA1_5"),
    "other curve": _set(*KEY, "crv", to="P-521"),
    "point not on the curve": _set(*KEY, "x", to=ZERO),
    "coordinates no text": _set(*KEY, "x", to=[1]),
    "evidence a list": _set(EVIDENCE, "primary_evidence", to=[]),
    "no token": _set(EVIDENCE, "additional_evidence", to="{}"),
    "two tokens": _set(EVIDENCE, "additional_evidence", to='{"k8s-token":"a","k8s-token":"b"}'),
    "a token and more": _set(EVIDENCE, "additional_evidence", to='{"k8s-token":"a","x":1}'),
    "token no text": _set(EVIDENCE, "additional_evidence", to='{"k8s-token":1}'),
    "huge token": _set(EVIDENCE, "additional_evidence", to=json.dumps({"k8s-token": "a" * 9000})),
    "additional evidence no text": _set(EVIDENCE, "additional_evidence", to={"k8s-token": "a"}),
    "additional evidence not ASCII": _set(EVIDENCE, "additional_evidence", to='{"k8s-token":"\ud800"}'),
}


@pytest.mark.parametrize("name", CHANGES)
def test_one_wrong_member_is_an_invalid_request(client: Client, device: Device, issuer: Issuer, name: str) -> None:
    body = json.loads(Guest(client, device, issuer.token()).body())
    CHANGES[name](body)
    answer = client.attest(json.dumps(body).encode())
    assert (answer.status, answer.error.problem) == (400, "InvalidRequest")


TOKENS = [
    "",
    "a",
    "a.b.c",
    "..",
    "e30.e30.",
    "bnVsbA.bnVsbA.x",
    "eyJhbGciOiJub25lIn0.e30.",
    "\x7f.\x7f.\x7f",
    "W10.W10.W10",
]


@pytest.mark.parametrize("token", TOKENS[1:])
def test_a_token_that_is_none_is_refused(client: Client, running: Verifier, device: Device, token: str) -> None:
    answer = Guest(client, device, token).attest()
    assert (answer.status, answer.error.problem) == (401, "AttestationRefused")
    (line,) = running.events("attestation", answer.error.correlation_id)
    assert line["reason"] in ("token-malformed", "token-issuer")


def test_evidence_of_any_other_shape_is_refused(client: Client, device: Device, issuer: Issuer) -> None:
    """Every value of a true report replaced by every kind of wrong one, some hundred at random."""
    chance = random.Random(7)
    original = json.loads(Guest(client, device, issuer.token()).body())
    report = original[EVIDENCE]["primary_evidence"]["attestation_report"]
    wrong: list[Any] = [None, -1, 1 << 70, "x", [], {}, [300] * 64, [[1]] * 48, True, 1.5]
    statuses = set()
    for number in range(120):
        body = copy.deepcopy(original)
        name = chance.choice(list(report))
        body[EVIDENCE]["primary_evidence"]["attestation_report"][name] = chance.choice(wrong)
        body[RUNTIME]["nonce"] = client.nonce()
        body[EVIDENCE]["additional_evidence"] = write_additional_evidence(issuer.token(uid=f"shape-{number}"))
        statuses.add(client.attest(json.dumps(body).encode()).status)
    assert statuses == {401}


def test_certificates_of_any_shape_are_judged_or_refused(client: Client, device: Device, issuer: Issuer) -> None:
    for number, chain in enumerate(
        (None, [], {}, [1], [{}], [{"cert_type": "VCEK", "data": [0] * 9000}], [{"cert_type": "A", "data": []}] * 17)
    ):
        body = json.loads(Guest(client, device, issuer.token(uid=f"chain-{number}")).body())
        body[EVIDENCE]["primary_evidence"]["cert_chain"] = chain
        assert client.attest(json.dumps(body).encode()).status == 401


def test_entries_of_the_hosts_table_that_nothing_reads_are_left_out(
    client: Client, device: Device, issuer: Issuer
) -> None:
    for number, entry in enumerate(UNREAD_ENTRIES):
        body = json.loads(Guest(client, device, issuer.token(uid=f"unread-{number}")).body())
        body[EVIDENCE]["primary_evidence"]["cert_chain"].insert(0, entry)
        assert client.attest(json.dumps(body).encode()).status == 200, entry


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", AUTH_PATH, 405),
        ("POST", "/kbs/v0/other", 404),
        ("GET", "/kbs/v0/resource/default/secret/x", 404),
        ("GET", f"{TOKEN_PATH}/", 404),
        ("GET", f"{TOKEN_PATH}/..%2f..%2fsys", 401),
        ("GET", f"{TOKEN_PATH}/a/b", 404),
    ],
)
def test_other_paths_are_not_served(client: Client, method: str, path: str, status: int) -> None:
    assert client.call(method, path).status == status


def test_it_still_serves_afterwards(client: Client, device: Device, issuer: Issuer, running: Verifier) -> None:
    assert Guest(client, device, issuer.token(uid="afterwards")).attest().status == 200
    assert running.events("handler_failed") == []
