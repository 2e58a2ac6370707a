"""A pod tells a verifier nothing before that has proven itself: no pod token, no evidence, whoever answers there."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import ECKey

from attestation.simulator.hierarchy import Hierarchy
from kbs.attested import ATTESTED_PATH
from kbs.messages import (
    ATTEST_PATH,
    AUTH_PATH,
    TOKEN_PATH,
    WIRE_HEADER,
    ErrorType,
    VaultToken,
)
from kbs.verifier import seal_token, write_attest_answer, write_auth_answer, write_error
from kbs.verifier_attest import VerifierAttest
from plan.codec import write_plan
from plan.document import SecretFile
from plan.layout import PLAN_VARIABLE
from sidecar.attest.handshake import Attester
from sidecar.deadline import Deadline
from sidecar.errors import SidecarError
from sidecar.log import Events
from sidecar.reasons import Exit, Reason
from sidecar.shutdown import ShutdownSignal
from tests.attestation.kms import Kms, kms_guest
from tests.attestation.verifier.process import Verifier
from tests.sidecar.front import Fault, Front, Request, Spoilt, front, never
from tests.sidecar.pod import CANARY, HOME, START, Pod, refused
from tests.sidecar.proving_front import NOWHERE, Played, asked_only, nonce_of, played
from tests.sidecar.resident import resident
from tests.support.certificates import make_pair
from tests.support.openbao import OpenBao
from tests.support.paths import ROOT

FILE = (SecretFile("password", f"{HOME}/db", "password", key="password"),)


@pytest.fixture(scope="module")
def kms(hierarchy: Hierarchy) -> Kms:
    return Kms(hierarchy)


def behind(pod: Pod, fronted: Front, attest: VerifierAttest | None) -> None:
    """The pod's verifier is behind the front, and has to prove itself."""
    pod.change(verifier=pod.plan.verifier._replace(url=fronted.url, ca=fronted.ca, attest=attest))


class _Hurried(Deadline):
    """Its pauses pass at once."""

    def sleep(self, seconds: float) -> None:
        self._end -= seconds


def attempt(pod: Pod) -> SidecarError:
    """One log-in in this process, which spares its start, and without its pauses; the error it ends with."""
    (pod.root / "token").write_text(pod.new_token())
    tokens: list[VaultToken] = []
    attester = Attester(pod.plan, pod.root / "token", Events(pod.root / "last-words"))
    with pytest.raises(SidecarError) as error:
        attester.log_in(_Hurried(120.0, ShutdownSignal()), tokens.append)
    assert not tokens
    return error.value


def closed(request: Request, _seen: Sequence[Request]) -> Spoilt | None:
    """Behind the proof everybody is refused, which ends a log-in at once."""
    return None if request.path == ATTESTED_PATH else Spoilt(401)


# --- honest ----------------------------------------------------------------------------------------------------------


def test_the_verifier_proves_itself_before_anything_else(
    pod: Pod, kms: Kms, verifier_process: Verifier, tmp_path: Path
) -> None:
    with played(tmp_path / "front", (verifier_process.port, pod.plan.verifier.ca), Played(kms)) as fronted:
        behind(pod, fronted, kms.by_signer)
        pod.change(secrets=FILE)
        ended = pod.run()
    assert ended.code == 0, ended.stderr
    assert [each.path for each in fronted.seen] == [ATTESTED_PATH, AUTH_PATH, ATTEST_PATH, f"{TOKEN_PATH}/default"]
    assert fronted.seen[-1].headers[WIRE_HEADER] == "2"
    (event,) = ended.named("verifier_attested")
    assert (event["guest"], event["serial"], event["simulated"]) == ("kms", 7, True)
    assert (pod.secrets / "password").read_text().startswith(CANARY)


def test_a_new_connection_to_the_proven_key_needs_no_new_proof(
    pod: Pod, kms: Kms, verifier_process: Verifier, tmp_path: Path
) -> None:
    """The verifier closes every connection after one answer, as one that is about to stop does."""
    target = (verifier_process.port, pod.plan.verifier.ca)
    with played(tmp_path / "front", target, Played(kms), closes=True) as fronted:
        behind(pod, fronted, kms.by_signer)
        ended = pod.run()
    assert ended.code == 0, ended.stderr
    assert fronted.paths() == [ATTESTED_PATH, AUTH_PATH, ATTEST_PATH, f"{TOKEN_PATH}/default"]


def test_a_plan_that_does_not_demand_it_asks_nothing(pod: Pod, verifier_process: Verifier, tmp_path: Path) -> None:
    """And imports nothing of it: neither appraisal nor the forms of reference values."""
    with front(tmp_path / "front", (verifier_process.port, pod.plan.verifier.ca), never) as fronted:
        behind(pod, fronted, None)
        assert pod.run().code == 0
    assert ATTESTED_PATH not in fronted.paths()
    assert not any(WIRE_HEADER in each.headers for each in fronted.seen)


_IMPORTS = START.replace("sys.exit(", "code = (") + "print(*sys.modules)\nsys.exit(code)\n"
_ONLY_FOR_PROOF = (
    "attestation.appraisal",
    "attestation.pki",
    "kbs.attested",
    "kbs.guest_values",
    "kbs.references",
    "kbs.spki",
    "kbs.verifier_attest",
    "sidecar.attest.verifier_answer",
    "sidecar.attest.verifier_first",
)
# Making a dataclass costs half a millisecond, and importing them seven; a JOSE library thirty; OpenSSH's formats eight;
# http.client ten with the package email; uuid two with platform.
_NOT_IN_ANY_START = {
    "calendar",
    "dataclasses",
    "datetime",
    "email",
    "http",
    "inspect",
    "joserfc",
    "rfc8785",
    "cryptography.hazmat.primitives.serialization",
    "platform",
    "uuid",
}
_FOR_PROOF = {"calendar", "datetime", "email"}  # of the library that reads certificates
# With room for what another release of Python or of the library brings along: 185 and 266 with Python 3.11.
_MOST_MODULES, _MOST_MODULES_WITH_PROOF = 205, 290
_NEVER = (
    "pydantic",
    "yaml",
    "aiohttp",
    "server",
    "attestation.verifier",
    "attestation.simulator",
    "kbs.verifier",
    "joserfc",
)


def _imported(pod: Pod) -> set[str]:
    """The modules of a whole run, which has to end well."""
    (pod.root / "token").write_text(pod.new_token())
    words = [sys.executable, "-c", _IMPORTS, str(pod.root), str(pod.helper)]
    environment = {PLAN_VARIABLE: write_plan(pod.plan)}
    done = subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True, env=environment)
    return set(done.stdout.split())


def test_only_a_cold_start_that_demands_proof_pays_for_it(
    pod: Pod, kms: Kms, verifier_process: Verifier, tmp_path: Path
) -> None:
    pod.change(secrets=FILE)
    found = _imported(pod)
    assert "sidecar.attest.handshake" in found
    assert not [name for name in found if name.startswith(_ONLY_FOR_PROOF)]
    assert not found & _NOT_IN_ANY_START
    assert len(found) <= _MOST_MODULES
    with played(tmp_path / "front", (verifier_process.port, pod.plan.verifier.ca), Played(kms)) as fronted:
        behind(pod, fronted, kms.by_signer)
        found = _imported(pod)
    assert found.issuperset(_ONLY_FOR_PROOF)
    assert not found & _NOT_IN_ANY_START - _FOR_PROOF
    assert len(found) <= _MOST_MODULES_WITH_PROOF
    assert not [name for name in found if any(name == never or name.startswith(f"{never}.") for never in _NEVER)]


# --- somebody else answers -------------------------------------------------------------------------------------------

_KMS: dict[str, tuple[Callable[[Kms], Kms], Reason, str]] = {
    "a workload pod of the verifier's image": (
        lambda kms: replace(kms, host_data=b"w" * 32),
        Reason.VERIFIER_NOT_ATTESTED,
        "guest/host-data",
    ),
    "a pod of the verifier's image without initdata": (
        lambda kms: replace(kms, host_data=bytes(32)),
        Reason.VERIFIER_NOT_ATTESTED,
        "guest/host-data",
    ),
    "a guest at VMPL 1": (
        lambda kms: replace(kms, fields={"vmpl": 1}),
        Reason.VERIFIER_NOT_ATTESTED,
        "guest/vmpl",
    ),
    "another image": (
        lambda kms: replace(kms, fields={"measurement": b"m" * 48}),
        Reason.VERIFIER_NOT_ATTESTED,
        "guest/measurement",
    ),
    "the report of another replica": (
        lambda kms: replace(kms, spki=b"a" * 32),
        Reason.VERIFIER_SPKI,
        "guest/report-data",
    ),
    "another configuration": (
        lambda kms: replace(kms, configuration=b"w" * 32),
        Reason.VERIFIER_CONFIGURATION,
        "references/configuration",
    ),
    "older signed values": (
        lambda kms: replace(kms, serial=6),
        Reason.VERIFIER_REFERENCES,
        "references/serial",
    ),
    "values by another key": (
        lambda kms: replace(kms, signer=ECKey.generate_key("P-256")),
        Reason.VERIFIER_REFERENCES,
        "references/signature",
    ),
    "signed values that list other chips": (
        lambda kms: replace(kms, guests=(kms_guest(chip_ids=frozenset({b"c" * 64})),)),
        Reason.VERIFIER_NOT_ATTESTED,
        "guest/chip-id",
    ),
}


@pytest.mark.parametrize("attack", _KMS)
def test_whoever_is_not_the_verifier_is_told_nothing(pod: Pod, kms: Kms, tmp_path: Path, attack: str) -> None:
    change, reason, check = _KMS[attack]
    with played(tmp_path / "front", NOWHERE, Played(kms, change)) as fronted:
        behind(pod, fronted, kms.by_signer)
        error = attempt(pod)
    assert (error.reason, error.exit_code) == (reason, Exit.VERIFIER_NOT_ATTESTED)
    assert check in error.detail
    assert "\n" not in error.line
    assert len(fronted.seen) == 1
    asked_only(fronted)


def test_a_machine_that_the_plan_does_not_list_is_told_nothing(pod: Pod, kms: Kms, tmp_path: Path) -> None:
    with played(tmp_path / "front", NOWHERE, Played(kms)) as fronted:
        behind(pod, fronted, kms.by_signer._replace(chip_ids=frozenset({b"c" * 64})))
        assert "guest/chip-id" in attempt(pod).detail
    asked_only(fronted)


_ANSWERS: dict[str, tuple[Spoilt, Reason]] = {
    "404": (Spoilt(404, body=b"{}"), Reason.VERIFIER_NO_EVIDENCE),
    "400": (Spoilt(400, body=b"{}"), Reason.VERIFIER_NO_EVIDENCE),
    "401": (Spoilt(401, body=b"{}"), Reason.VERIFIER_NO_EVIDENCE),
    "204": (Spoilt(204, body=b""), Reason.VERIFIER_NO_EVIDENCE),
    "a redirect": (Spoilt(307, (("Location", "https://127.0.0.1:1/attested"),)), Reason.VERIFIER_REDIRECTS),
    "nothing": (Spoilt(200, body=b""), Reason.VERIFIER_NOT_ATTESTED),
    "no JSON": (Spoilt(200, body=b"<html>"), Reason.VERIFIER_NOT_ATTESTED),
    "an empty object": (Spoilt(200, body=b"{}"), Reason.VERIFIER_NOT_ATTESTED),
    "a nonce": (Spoilt(200, body=write_auth_answer("A" * 32)), Reason.VERIFIER_NOT_ATTESTED),
    "too much": (Spoilt(200, body=b" " * 200_000), Reason.VERIFIER_ANSWER_TOO_LARGE),
}


@pytest.mark.parametrize("what", _ANSWERS)
def test_an_answer_that_proves_nothing_ends_the_start(pod: Pod, kms: Kms, tmp_path: Path, what: str) -> None:
    """At once: a verifier that does not prove itself does not begin to within the deadline."""
    spoilt, reason = _ANSWERS[what]
    with front(tmp_path / "front", NOWHERE, lambda _request, _seen: spoilt) as fronted:
        behind(pod, fronted, kms.by_signer)
        assert attempt(pod).reason is reason
    assert len(fronted.seen) == 1
    asked_only(fronted)


def test_an_answer_that_was_recorded_is_refused(pod: Pod, kms: Kms, tmp_path: Path) -> None:
    """The server has the verifier's TLS key, and an answer of the time when the verifier still ran."""
    recorded: list[bytes] = []

    def answer(body: bytes) -> bytes:
        recorded.append(body)
        return recorded[0]

    with played(tmp_path / "front", NOWHERE, Played(kms, answer=answer, spoil=closed)) as fronted:
        behind(pod, fronted, kms.by_signer)
        assert attempt(pod).reason is Reason.VERIFIER_REFUSED
        assert attempt(pod).reason is Reason.VERIFIER_SPKI


def test_a_refusal_is_one_line_and_one_exit_code(pod: Pod, kms: Kms, tmp_path: Path) -> None:
    with played(tmp_path / "front", NOWHERE, Played(kms, lambda kms: replace(kms, host_data=b"w" * 32))) as fronted:
        behind(pod, fronted, kms.by_signer)
        ended = pod.run()
    event = refused(ended, Exit.VERIFIER_NOT_ATTESTED, "verifier-not-attested")
    assert "guest/host-data" in event["detail"]
    assert pod.published() == []
    asked_only(fronted)


# --- on the way ------------------------------------------------------------------------------------------------------


def test_a_balancer_that_ends_tls_is_told_nothing(pod: Pod, kms: Kms, tmp_path: Path) -> None:
    """The real verifier answers behind it, and the plan's CA vouches for the balancer's certificate."""
    with (
        played(tmp_path / "verifier", NOWHERE, Played(kms)) as real,
        front(tmp_path / "balancer", (int(real.url.rsplit(":")[-1]), real.ca), never) as between,
    ):
        behind(pod, between, kms.by_signer)
        error = attempt(pod)
    assert (error.reason, error.exit_code) == (Reason.VERIFIER_SPKI, Exit.VERIFIER_NOT_ATTESTED)
    for each in (real, between):
        asked_only(each)


def test_a_connection_that_may_change_its_key_is_not_used(pod: Pod, kms: Kms, tmp_path: Path) -> None:
    """TLS 1.2 can renegotiate, and show another certificate in the middle of a connection."""
    with played(tmp_path / "front", NOWHERE, Played(kms)) as fronted:
        fronted.context.maximum_version = ssl.TLSVersion.TLSv1_2
        behind(pod, fronted, kms.by_signer)
        assert attempt(pod).exit_code is Exit.VERIFIER_UNREACHABLE
    assert not fronted.seen


@contextmanager
def in_turn(*fronts: Front) -> Iterator[str]:
    """An address whose first connection goes to the first front, and so on, all later ones to the last; TLS passes."""
    listener = socket.create_server(("127.0.0.1", 0))
    ports = [int(each.url.rsplit(":")[-1]) for each in fronts]

    def relay(one: socket.socket, other: socket.socket) -> None:
        while True:
            try:
                data = one.recv(65536)
                other.sendall(data)
            except OSError:
                data = b""
            if not data:
                for each in (one, other):
                    with suppress(OSError):
                        each.shutdown(socket.SHUT_RDWR)
                return

    def accept() -> None:
        count = 0
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", ports[min(count, len(ports) - 1)]))
            count += 1
            for pair in ((near, far), (far, near)):
                threading.Thread(target=relay, args=pair, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"https://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def test_a_new_connection_to_somebody_else_carries_nothing(pod: Pod, kms: Kms, tmp_path: Path) -> None:
    """The verifier closes the connection after its proof, and the next one ends at a server with a key of its own."""
    with (
        played(tmp_path / "real", NOWHERE, Played(kms), closes=True) as real,
        played(tmp_path / "other", NOWHERE, Played(kms, lambda kms: replace(kms, host_data=b"w" * 32))) as other,
        in_turn(real, other) as url,
    ):
        pod.change(verifier=pod.plan.verifier._replace(url=url, ca=real.ca + other.ca, attest=kms.by_signer))
        error = attempt(pod)
    assert (error.reason, error.exit_code) == (Reason.VERIFIER_NOT_ATTESTED, Exit.VERIFIER_NOT_ATTESTED)
    for each in (real, other):
        assert len(each.seen) == 1
        asked_only(each)


def test_each_replica_proves_its_own_key(pod: Pod, kms: Kms, verifier_process: Verifier, tmp_path: Path) -> None:
    """Two replicas have a key each. One closes the connection after its proof; the other proves its own key."""
    target = (verifier_process.port, pod.plan.verifier.ca)
    with (
        played(tmp_path / "one", target, Played(kms), closes=True) as one,
        played(tmp_path / "two", target, Played(kms)) as two,
        in_turn(one, two) as url,
    ):
        pod.change(verifier=pod.plan.verifier._replace(url=url, ca=one.ca + two.ca, attest=kms.by_signer), secrets=FILE)
        ended = pod.run()
    assert ended.code == 0, ended.stderr
    for each in (one, two):
        assert each.paths()[:1] == [ATTESTED_PATH]
        assert each.paths().count(ATTESTED_PATH) == 1
    assert [each["reason"] for each in ended.named("retry")] == ["verifier-session"]


# --- the verifier cannot answer now ----------------------------------------------------------------------------------


def _busy(times: int) -> Fault:
    body = write_error(ErrorType.EVIDENCE, "0" * 16)

    def fault(_request: Request, seen: Sequence[Request]) -> Spoilt | None:
        return Spoilt(503, (("Retry-After", "0"),), body) if len(seen) < times else None

    return fault


def test_a_verifier_without_evidence_at_the_moment_is_asked_again(
    pod: Pod, kms: Kms, verifier_process: Verifier, tmp_path: Path
) -> None:
    target = (verifier_process.port, pod.plan.verifier.ca)
    with played(tmp_path / "front", target, Played(kms, spoil=_busy(2))) as fronted:
        behind(pod, fronted, kms.by_signer)
        assert pod.run().code == 0
    assert fronted.paths()[:4] == [ATTESTED_PATH] * 3 + [AUTH_PATH]
    assert len({nonce_of(each) for each in fronted.seen[:3]}) == 3


def test_a_verifier_without_evidence_until_the_deadline_is_told_nothing(pod: Pod, kms: Kms, tmp_path: Path) -> None:
    with front(tmp_path / "front", NOWHERE, _busy(1000)) as fronted:
        behind(pod, fronted, kms.by_signer)
        error = attempt(pod)
    assert error.exit_code is Exit.VERIFIER_UNREACHABLE
    assert fronted.seen
    asked_only(fronted)


def test_a_verifier_that_does_not_answer_is_asked_again(
    pod: Pod, kms: Kms, verifier_process: Verifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidecar.http.ATTEMPT_SECONDS", 1.0)

    def slow(request: Request, seen: Sequence[Request]) -> Spoilt | None:
        return closed(request, seen) if seen else Spoilt(200, body=b"{}" * 200, trickle=True)

    with played(tmp_path / "front", NOWHERE, Played(kms, spoil=slow)) as fronted:
        behind(pod, fronted, kms.by_signer)
        assert attempt(pod).reason is Reason.VERIFIER_REFUSED
    assert fronted.paths()[:2] == [ATTESTED_PATH] * 2
    assert fronted.paths()[-1] == AUTH_PATH


# --- Vault's CA ------------------------------------------------------------------------------------------------------


def _verifier_of(make: Callable[[], VaultToken]) -> Fault:
    """A verifier that lets everybody in and hands out tokens."""
    guests: list[dict[str, Any]] = []

    def fault(request: Request, _seen: Sequence[Request]) -> Spoilt | None:
        if request.path == AUTH_PATH:
            return Spoilt(200, body=write_auth_answer("A" * 32))
        if request.path == ATTEST_PATH:
            guests.append(json.loads(request.body)["runtime-data"])
            return Spoilt(200, body=write_attest_answer("bearer", "0" * 16))
        if request.path.startswith(TOKEN_PATH):
            return Spoilt(200, body=seal_token(make(), guests[-1]["tee-pubkey"], guests[-1]["nonce"], "default"))
        return None

    return fault


def _token(bao: OpenBao, ca: str) -> VaultToken:
    made = bao.done("POST", "auth/token/create", {"policies": ["tests"], "ttl": "1h"})
    return VaultToken(made["auth"]["client_token"], 3600, True, "vm", True, ca)


OTHER_CA = make_pair()[0].decode()


def test_an_attested_verifier_names_vaults_ca(pod: Pod, kms: Kms, bao: OpenBao, tmp_path: Path) -> None:
    """Vault's certificate authority changed; no Service was rendered anew."""
    plays = Played(kms, spoil=_verifier_of(lambda: _token(bao, bao.ca)))
    with played(tmp_path / "front", NOWHERE, plays) as fronted:
        behind(pod, fronted, kms.by_signer)
        pod.change(secrets=FILE, vault=pod.plan.vault._replace(ca=OTHER_CA))
        ended = pod.run()
    assert ended.code == 0, ended.stderr
    assert ended.named("vault_ca_replaced")
    assert ended.named("token_revoked")


def test_an_attested_verifiers_ca_for_vault_counts_alone(pod: Pod, kms: Kms, bao: OpenBao, tmp_path: Path) -> None:
    """The control plane's plan names a Vault of its own with a CA of its own."""
    plays = Played(kms, spoil=_verifier_of(lambda: _token(bao, OTHER_CA)))
    with played(tmp_path / "front", NOWHERE, plays) as fronted:
        behind(pod, fronted, kms.by_signer)
        pod.change(secrets=FILE)
        ended = pod.run()
    detail = refused(ended, Exit.VAULT_UNREACHABLE, "vault-not-trusted")["detail"]
    assert "the verifier's CA does not vouch for" in detail


def test_a_verifier_that_proved_nothing_does_not_replace_vaults_ca(pod: Pod, bao: OpenBao, tmp_path: Path) -> None:
    with front(tmp_path / "front", NOWHERE, _verifier_of(lambda: _token(bao, OTHER_CA))) as fronted:
        behind(pod, fronted, None)
        pod.change(secrets=FILE)
        ended = pod.run()
    refused(ended, Exit.CONFIGURATION, "vault-ca-differs")
    assert ended.named("token_revoked")
    assert pod.published() == []


def test_the_plans_own_ca_in_other_words_is_no_difference(pod: Pod, bao: OpenBao, tmp_path: Path) -> None:
    commented = "# Vault\n" + ssl.DER_cert_to_PEM_cert(ssl.PEM_cert_to_DER_cert(bao.ca))
    with front(tmp_path / "front", NOWHERE, _verifier_of(lambda: _token(bao, commented))) as fronted:
        behind(pod, fronted, None)
        pod.change(secrets=FILE)
        assert pod.run().code == 0


def test_a_running_agent_asks_the_verifier_at_once_when_vaults_ca_changes(
    pod: Pod, kms: Kms, bao: OpenBao, tmp_path: Path
) -> None:
    """The application keeps its secrets, and the agent its way to new ones, without a new plan."""
    with front(tmp_path / "vault", (bao.tls_port, bao.ca), never) as vault:
        plays = Played(kms, spoil=_verifier_of(lambda: _token(bao, vault.ca)))
        with played(tmp_path / "front", NOWHERE, plays) as fronted:
            behind(pod, fronted, kms.by_signer)
            pod.change(secrets=FILE, vault=pod.plan.vault._replace(url=vault.url, ca=OTHER_CA))
            with resident(pod, reread=2.0) as running:
                running.wait("published")
                assert fronted.paths().count(ATTESTED_PATH) == 1
                vault.renew()
                running.wait("trouble", reason="vault-not-trusted")
                running.wait("verifier_attested", 2)
                running.wait("recovered", subject="vault")
                assert running.stop().code == 0
    attested = [each for each in running.events if each["event"] in ("trouble", "verifier_attested")]
    # At once: not at two thirds of the token's life.
    assert attested[-1]["uptime_ms"] - attested[-2]["uptime_ms"] < 1_200_000
    assert not running.named("trouble", subject="attestation")
    assert len(running.named("token_revoked")) == 2
