"""Attacks on the third call, from outside: forged, foreign and reused bearers, and callers that leave early."""

from __future__ import annotations

import base64
import contextlib
import hmac
import json
import shutil
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from attestation.simulator.device import Device
from attestation.simulator.hierarchy import Hierarchy
from attestation.verifier.policies.load import load_policies
from kbs.ephemeral_key import EphemeralKey
from kbs.guest import open_token, read_attest_answer, token_path
from kbs.messages import ERROR_BASE
from tests.attestation.verifier.process import Site, Verifier, make_site, policy, verifier
from tests.attestation.verifier.test_refusals import Guest, inside, outside
from tests.attestation.verifier.tokens import Issuer
from tests.e2e.forwarder import Forwarder, forwarder
from tests.support.openbao import OpenBao
from tests.support.until import until

_SESSION_UNKNOWN = ERROR_BASE + "SessionUnknown"
_EARLY_LEAVERS = 20


@pytest.fixture(autouse=True)
def vault_trusts_the_verifier(bao: OpenBao, running: Verifier) -> None:
    """Another file's tests may have made the shared OpenBao trust the keys of a verifier of their own."""
    bao.trust(running.site.public_keys)


def _bearer(running: Verifier, device: Device, issuer: Issuer, uid: str) -> str:
    client = running.client()
    try:
        return read_attest_answer(Guest(client, device, issuer.token(uid=uid)).attest().body)
    finally:
        client.close()


def _tokens(bao: OpenBao) -> set[str]:
    return set(bao.done("LIST", "auth/token/accessors")["data"]["keys"])


def _forged(key: bytes, site: Site, public: dict[str, str], subject: str) -> str:
    """A bearer for `subject` that names the policy of payments, in the form that verifiers once made."""
    folders = (site.folder / "policies", site.folder / "guests")
    (payments,) = load_policies(*folders, {"prod": False}).value.policies
    cluster, namespace, service = subject.split("/")
    now = int(time.time())
    claims = {
        "iat": now,
        "exp": now + 60,
        "jti": "0123456789abcdef",
        "sub": subject,
        "cnf": {"jwk": public},
        "eat_nonce": "A" * 43 + "=",
        "policy": payments.digest,
        "claims": {
            "cluster": cluster,
            "namespace": namespace,
            "service": service,
            "assurance": "workload",
            "simulated": "false",
        },
    }
    signed = ".".join(_encode(json.dumps(each).encode()) for each in ({"alg": "HS256", "typ": "JWT"}, claims))
    return f"{signed}.{_encode(hmac.digest(key, signed.encode(), 'sha256'))}"


def _encode(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


@pytest.mark.parametrize("service", ["payments", "neighbour"])
def test_no_file_of_the_verifier_makes_a_bearer(running: Verifier, bao: OpenBao, service: str) -> None:
    """The attacker has every file beside the verifier, as in a backup, and neither evidence nor a pod token."""
    own, client, before = EphemeralKey(), running.client(), _tokens(bao)
    contents = [path.read_bytes() for path in running.site.folder.rglob("*") if path.is_file()]
    keys = [key for key in contents if key]
    keys += [hmac.digest(key, b"morphisms bearer", "sha256") for key in keys]
    answers = [client.token(_forged(key, running.site, own.public, f"prod/shop/{service}")) for key in keys]
    client.close()
    assert {answer.status for answer in answers} == {401}
    assert {outside(answer)["type"] for answer in answers} == {_SESSION_UNKNOWN}
    assert _tokens(bao) <= before


def test_a_bearer_says_nothing_about_its_holder(running: Verifier, device: Device, issuer: Issuer) -> None:
    """Nothing in it is trusted, so nothing is in it."""
    bearer = _bearer(running, device, issuer, "opaque")
    payload = bearer.split(".")[1]
    assert set(json.loads(base64.urlsafe_b64decode(payload + "=="))) == {"iat", "exp", "jti", "cnf"}


def test_one_attestation_makes_one_login(running: Verifier, bao: OpenBao, device: Device, issuer: Issuer) -> None:
    bearer, before = _bearer(running, device, issuer, "once"), _tokens(bao)
    client = running.client()
    answers = [client.token(bearer) for _ in range(20)]
    client.close()
    assert [answer.status for answer in answers] == [200] + [401] * 19
    assert {outside(answer)["type"] for answer in answers[1:]} == {_SESSION_UNKNOWN}
    assert len(_tokens(bao) - before) == 1
    assert inside(running, answers[1], "login")[0] == "bearer-used"


@pytest.fixture
def twins(
    tmp_path: Path, hierarchy: Hierarchy, issuer: Issuer, bao: OpenBao, running: Verifier
) -> Iterator[tuple[Verifier, Verifier]]:
    """Two processes on copies of one folder, as two replicas have it."""
    (tmp_path / "twin").mkdir()
    site = make_site(tmp_path / "twin", hierarchy, issuer, bao.url)
    for path in running.site.folder.iterdir():
        if path.name in ("signing.pem", "session.key"):
            (site.folder / path.name).unlink(missing_ok=True)
            shutil.copy2(path, site.folder / path.name)
    site.write_policy("payments", policy())
    with verifier(site) as other:
        yield running, other


def test_a_nonce_and_a_bearer_are_their_own_processs(
    twins: tuple[Verifier, Verifier], device: Device, issuer: Issuer
) -> None:
    first, second = (each.client() for each in twins)
    guest = Guest(first, device, issuer.token(uid="twin"))
    foreign = second.attest(guest.body())
    assert foreign.status == 503
    assert outside(foreign)["type"] == _SESSION_UNKNOWN
    assert foreign.headers["retry-after"] == "0"
    assert inside(twins[1], foreign) == ("nonce-foreign", [])
    bearer = read_attest_answer(guest.attest().body)
    answer = second.token(bearer)
    assert (answer.status, outside(answer)["type"]) == (401, _SESSION_UNKNOWN)
    # The other process took nothing from it.
    assert open_token(first.token(bearer).body, guest.key, guest.nonce).token
    first.close()
    second.close()


def _leave_early(running: Verifier, bearer: str) -> None:
    """The third call, closed before its answer."""
    context = ssl.create_default_context(cafile=str(running.site.folder / "ca.crt"))
    plain = socket.create_connection(("127.0.0.1", running.port), 300)
    with context.wrap_socket(plain, server_hostname="127.0.0.1") as connection:
        connection.sendall(f"GET {token_path()} HTTP/1.1\r\nHost: v\r\nAuthorization: Bearer {bearer}\r\n\r\n".encode())


@contextlib.contextmanager
def _slow(
    folder: Path, hierarchy: Hierarchy, bao: OpenBao, running: Verifier, issuer: Issuer, seconds: float
) -> Iterator[tuple[Verifier, Forwarder]]:
    """A verifier that waits so long for its Vault, and what holds Vault's answers."""
    with forwarder(bao.port) as to_vault:
        (folder / "slow").mkdir()
        site = make_site(folder / "slow", hierarchy, issuer, f"http://127.0.0.1:{to_vault.port}")
        shutil.copy2(running.site.folder / "signing.pem", folder / "signing.pem")
        (folder / "signing.pem").replace(site.folder / "signing.pem")
        site.settings["vault"]["timeoutSeconds"] = seconds
        site.write_policy("payments", policy())
        with verifier(site) as slow:
            yield slow, to_vault


def test_callers_that_leave_before_the_answer_leave_no_token(
    tmp_path: Path, hierarchy: Hierarchy, bao: OpenBao, running: Verifier, device: Device, issuer: Issuer
) -> None:
    before = _tokens(bao)
    with _slow(tmp_path, hierarchy, bao, running, issuer, 15.0) as (slow, to_vault):
        bearers = [_bearer(slow, device, issuer, f"early-{number}") for number in range(_EARLY_LEAVERS)]
        client = slow.client()
        to_vault.hold_answers()
        for bearer in bearers:
            _leave_early(slow, bearer)
        # The event loop that answers these has read before that the callers have left.
        for _ in range(3):
            client.nonce()
        to_vault.release()
        until(lambda: len(slow.events("login")) == _EARLY_LEAVERS)
        assert {line["reason"] for line in slow.events("login")} == {"caller-gone"}
        until(lambda: len(slow.events("late_login")) == _EARLY_LEAVERS)
        client.close()
    assert _tokens(bao) <= before


def test_callers_that_leave_a_slow_vault_leave_no_token(
    tmp_path: Path, hierarchy: Hierarchy, bao: OpenBao, running: Verifier, device: Device, issuer: Issuer
) -> None:
    """Vault has made the tokens, its answers are held for longer than the verifier waits, and come then."""
    before = _tokens(bao)
    with _slow(tmp_path, hierarchy, bao, running, issuer, 2.0) as (slow, to_vault):
        bearers = [_bearer(slow, device, issuer, f"slow-{number}") for number in range(_EARLY_LEAVERS)]
        to_vault.hold_answers()
        for bearer in bearers:
            _leave_early(slow, bearer)
        until(lambda: len(slow.events("login")) >= _EARLY_LEAVERS)
        until(lambda: len(_tokens(bao) - before) == _EARLY_LEAVERS)  # the attack: tokens that no guest has
        to_vault.release()
        until(lambda: len(slow.events("late_login")) == _EARLY_LEAVERS)
    assert _tokens(bao) <= before
