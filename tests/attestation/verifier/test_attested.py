"""The verifier proves itself to a pod: real processes over TLS, two replicas, a machine as slow as firmware."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import secrets
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from attestation.appraisal.appraise_verifier import VerifierResult, appraise_verifier
from attestation.simulator.device import Device
from attestation.simulator.hierarchy import Hierarchy
from attestation.simulator.server import SimulatedMachine
from attestation.verifier.digests import policies_digest
from attestation.verifier.policies.load import load_policies
from attestation.verifier.policies.model import PolicySet
from attestation.verifier.self_attestation import MOST_WAITING
from kbs.attested_guest import AttestedAnswer, read_attested_answer, write_attested
from kbs.base64url import encode
from tests.attestation.kms import KMS_HOST_DATA
from tests.attestation.verifier.attesting import Caller, Signer, digest_of, make_attesting_site, metrics
from tests.attestation.verifier.guest import Answer
from tests.attestation.verifier.process import Verifier, policy, verifier
from tests.attestation.verifier.tokens import Issuer
from tests.support.certificates import make_pair
from tests.support.simulated_machine import simulated_machine
from tests.support.until import until

REPORT_MILLISECONDS = 30


@dataclass
class Kms:
    """Two replicas, each with a key and a configuration of its own, in guests of one simulated machine."""

    signer: Signer
    first: Verifier
    second: Verifier


@pytest.fixture(scope="module")
def machine(hierarchy: Hierarchy) -> Iterator[str]:
    with simulated_machine(hierarchy, KMS_HOST_DATA, "--report-milliseconds", str(REPORT_MILLISECONDS)) as address:
        yield address


@pytest.fixture(scope="module")
def kms(tmp_path_factory: pytest.TempPathFactory, hierarchy: Hierarchy, issuer: Issuer, machine: str) -> Iterator[Kms]:
    signer = Signer(hierarchy)
    sites = [make_attesting_site(tmp_path_factory.mktemp(name), hierarchy, issuer, machine) for name in ("a", "b")]
    for site in sites:
        signer.sign(site)
    with verifier(sites[0]) as first, verifier(sites[1]) as second:
        yield Kms(signer, first, second)


def appraised(kms: Kms, answer: AttestedAnswer, nonce: bytes, spki: bytes) -> VerifierResult:
    """What a pod makes of an answer on a connection that showed this key."""
    return appraise_verifier(answer, nonce, spki, kms.signer.demand(), datetime.now(UTC))


def test_a_pod_accepts_the_verifier_that_its_plan_names(kms: Kms) -> None:
    caller, nonce = Caller(kms.first), secrets.token_bytes(32)
    answer = caller.prove(nonce)
    result = appraised(kms, answer, nonce, caller.spki)
    assert result.accepted, result.failed
    assert result.simulated
    assert answer.configuration == digest_of(kms.first.site)
    folder = kms.first.site.folder
    loaded = load_policies(folder / "policies", folder / "guests", {"prod": False})
    assert answer.policies == policies_digest(loaded.value)
    # Fit for a pod without a network: the leaf and its issuer. The simulated root stands in the plan alone.
    assert [each["cert_type"] for each in answer.evidence["cert_chain"]] == ["VCEK", "ASK"]


def test_evidence_of_the_guests_agent_is_accepted_too(
    kms: Kms, hierarchy: Hierarchy, issuer: Issuer, machine: str, tmp_path: Path
) -> None:
    """The agent takes text alone, so REPORT_DATA has the other one of its two encodings."""
    site = make_attesting_site(tmp_path, hierarchy, issuer, machine)
    site.settings["attest"]["sources"] = [
        {"source": "sev-guest", "address": str(tmp_path / "no-such-device")},
        {"source": "coco-aa", "address": machine},
    ]
    kms.signer.sign(site)
    with verifier(site) as running:
        caller, nonce = Caller(running), secrets.token_bytes(32)
        answer = caller.prove(nonce)
        assert bytes(answer.evidence["attestation_report"]["report_data"]).isascii()
        result = appraised(kms, answer, nonce, caller.spki)
        assert result.accepted, result.failed
        until(lambda: running.events("self_attestation"))
        assert running.events("self_attestation")[0]["source"] == "coco-aa"


def test_every_surface_says_that_the_evidence_is_simulated(kms: Kms) -> None:
    answer = Caller(kms.first).call(body=write_attested(bytes(32)))
    assert json.loads(answer.body)["simulated"] is True
    assert metrics(kms.first)['morphisms_attests_itself{simulated="true",source="simulated"}'] == 1
    assert all(line["simulated"] for line in kms.first.events("self_attestation"))
    assert kms.first.events("simulated_self_attestation")


@pytest.mark.parametrize("member", ["evidence", "path", "policies", "configuration", "references"])
def test_an_answer_that_was_changed_on_the_way_is_refused(kms: Kms, member: str) -> None:
    caller, nonce = Caller(kms.first), secrets.token_bytes(32)
    document = json.loads(caller.call(body=write_attested(nonce)).body)
    other = encode(os.urandom(32))
    if member == "evidence":
        document["evidence"]["attestation_report"]["measurement"][0] ^= 1
    elif member == "path":
        document["path"] = [{"side": "left", "hash": other}]
    elif member == "references":
        document["references"] = Signer(kms.signer.hierarchy).sign(kms.second.site)
        kms.signer.sign(kms.second.site)
    else:
        document[member] = other
    changed = read_attested_answer(json.dumps(document).encode())
    assert not appraised(kms, changed, nonce, caller.spki).accepted


def test_the_answer_to_another_nonce_is_refused(kms: Kms) -> None:
    caller = Caller(kms.first)
    answer = caller.prove(bytes(32))
    assert not appraised(kms, answer, b"\x01" + bytes(31), caller.spki).accepted


def test_a_replicas_answer_proves_nothing_on_another_replicas_connection(kms: Kms) -> None:
    """A man in the middle with a certificate of its own relays an honest replica's report."""
    first, second, nonce = Caller(kms.first), Caller(kms.second), secrets.token_bytes(32)
    relayed = first.prove(nonce)
    assert appraised(kms, relayed, nonce, first.spki).accepted
    assert [check.id for check in appraised(kms, relayed, nonce, second.spki).failed] == ["guest/report-data"]


def test_each_connection_gets_the_key_that_its_own_handshake_showed(
    kms: Kms, hierarchy: Hierarchy, issuer: Issuer, machine: str, tmp_path: Path
) -> None:
    """The certificate changes between handshake and call."""
    site = make_attesting_site(tmp_path, hierarchy, issuer, machine)
    kms.signer.sign(site)
    with verifier(site) as running:
        old = Caller(running)
        certificate, key = make_pair()
        for name, content in (("ca.crt", certificate), ("tls.crt", certificate), ("tls.key", key)):
            aside = tmp_path / f".{name}"
            aside.write_bytes(content)
            aside.replace(tmp_path / name)

        def shows_the_new_one() -> bool:
            try:
                return Caller(running).spki != old.spki
            except OSError:
                return False

        until(shows_the_new_one)
        new = Caller(running)
        for caller, other in ((old, new), (new, old)):
            nonce = secrets.token_bytes(32)
            answer = caller.prove(nonce)
            assert appraised(kms, answer, nonce, caller.spki).accepted
            assert not appraised(kms, answer, nonce, other.spki).accepted


@dataclass(frozen=True)
class HeldDevice(Device):
    """Firmware that a test holds. `asked` is set with each call; a call ends once `may_answer` is."""

    asked: threading.Event = field(default_factory=threading.Event)
    may_answer: threading.Event = field(default_factory=threading.Event)

    def report(self, report_data: bytes) -> bytes:
        self.asked.set()
        self.may_answer.wait(300)
        return super().report(report_data)


def test_dozens_of_pods_share_two_calls_of_firmware(
    kms: Kms, hierarchy: Hierarchy, issuer: Issuer, tmp_path: Path
) -> None:
    """Those that come while one call is under way share the next one; beyond a number of them pods are told to wait."""
    firmware = HeldDevice(hierarchy, host_data=KMS_HOST_DATA)
    firmware.may_answer.set()
    machine = SimulatedMachine(firmware, ("127.0.0.1", 0))
    machine.start()
    site = make_attesting_site(tmp_path, hierarchy, issuer, machine.address)
    kms.signer.sign(site)
    with verifier(site) as running:
        callers = [Caller(running) for _ in range(MOST_WAITING + 2)]
        nonces = [secrets.token_bytes(32) for _ in callers]
        until(lambda: running.events("self_attestation"))  # of the start
        firmware.asked.clear()
        firmware.may_answer.clear()
        answers: dict[int, Answer] = {}

        def ask(number: int) -> None:
            answers[number] = callers[number].call(body=write_attested(nonces[number]))

        threads = [threading.Thread(target=ask, args=(number,), daemon=True) for number in range(len(callers))]
        threads[0].start()
        until(firmware.asked.is_set)
        for thread in threads[1:]:
            thread.start()
        until(lambda: answers)  # one is refused, so as many as may are waiting
        firmware.may_answer.set()
        for thread in threads:
            thread.join()
        proven = {number: read_attested_answer(each.body) for number, each in answers.items() if each.status == 200}
        assert len(proven) == MOST_WAITING + 1
        for number, answer in proven.items():
            result = appraised(kms, answer, nonces[number], callers[number].spki)
            assert result.accepted, result.failed
        assert not appraised(kms, proven[0], nonces[1], callers[0].spki).accepted
        (refused,) = [each for each in answers.values() if each.status != 200]
        assert (refused.status, refused.error.problem) == (503, "TemporarilyUnavailable")
        assert [call["nonces"] for call in running.events("self_attestation")[1:]] == [1, MOST_WAITING]
        for caller in callers:
            caller.close()
    machine.stop()


@pytest.mark.parametrize(
    ("method", "body", "status"),
    [
        ("GET", None, 405),
        ("HEAD", None, 405),
        ("PUT", write_attested(bytes(32)), 405),
        ("POST", None, 400),
        ("POST", b"{}", 400),
        ("POST", write_attested(bytes(32))[:-1] + b',"nonce":"%s"}' % encode(bytes(32)).encode(), 400),
        ("POST", b'{"nonce":"%s"}' % encode(bytes(31)).encode(), 400),
        ("POST", b'{"nonce":"' + b"A" * 5000 + b'"}', 413),
    ],
)
def test_what_is_no_such_call_costs_no_report(kms: Kms, method: str, body: bytes | None, status: int) -> None:
    Caller(kms.first).prove(bytes(32))
    before = len(kms.first.events("self_attestation"))
    assert Caller(kms.first).call(method, body).status == status
    # One more report would stand before that of the honest call.
    Caller(kms.first).prove(bytes(32))
    until(lambda: len(kms.first.events("self_attestation")) > before)
    assert len(kms.first.events("self_attestation")) == before + 1


def test_new_references_are_served_without_a_restart(kms: Kms) -> None:
    caller = Caller(kms.first)
    assert kms.signer.demand(1)
    compact = kms.signer.sign(kms.first.site, serial=2)

    def serves_the_new_ones() -> bool:
        return caller.prove(bytes(32)).references == compact

    until(serves_the_new_ones)
    (kms.first.site.folder / "references.jws").write_text("x" * 20_000)
    until(lambda: kms.first.events("file_not_reloaded"))
    assert caller.prove(bytes(32)).references == compact, "a broken file does not take the last good one away"
    kms.signer.sign(kms.first.site)


def test_an_operator_is_told_that_pods_will_refuse_a_changed_configuration(
    kms: Kms, hierarchy: Hierarchy, issuer: Issuer, machine: str, tmp_path: Path
) -> None:
    """The ConfigMap was changed, and nobody signed new references."""
    site = make_attesting_site(tmp_path, hierarchy, issuer, machine)
    kms.signer.sign(site)
    site.settings["vault"]["url"] = "http://127.0.0.1:2"
    with verifier(site) as running:
        (line,) = running.events("references_lack_configuration")
        assert line["configuration"] == encode(digest_of(site))
        assert metrics(running)["morphisms_references_list_configuration"] == 0
        caller, nonce = Caller(running), bytes(32)
        refused = appraised(kms, caller.prove(nonce), nonce, caller.spki)
        assert [check.id for check in refused.failed] == ["references/configuration"]
        kms.signer.sign(site, serial=2)
        until(lambda: appraised(kms, caller.prove(nonce), nonce, caller.spki).accepted)
        until(lambda: metrics(running)["morphisms_references_list_configuration"] == 1)


def test_a_verifier_that_cannot_read_its_policies_yet_attests_that_none_are_in_force(
    kms: Kms, hierarchy: Hierarchy, issuer: Issuer, machine: str, tmp_path: Path
) -> None:
    """A sealed one, whose policies lie in a Vault that it cannot use: people attest it before they unseal it."""
    site = make_attesting_site(tmp_path, hierarchy, issuer, machine)
    del site.settings["policies"], site.settings["guests"]
    (tmp_path / "token").write_text("none")
    (tmp_path / "token").chmod(0o400)
    site.settings["vault"]["login"] = {"tokenFile": "token"}
    site.settings["policyVault"] = {"path": "verifier/policies"}
    kms.signer.sign(site)
    with verifier(site) as running:
        caller, nonce = Caller(running), secrets.token_bytes(32)
        answer = caller.prove(nonce)
        assert answer.policies == policies_digest(PolicySet.of(()))
        assert appraised(kms, answer, nonce, caller.spki).accepted


def test_new_policies_change_what_the_report_binds(kms: Kms) -> None:
    caller, nonce = Caller(kms.second), bytes(32)
    before = caller.prove(nonce).policies
    kms.second.site.write_policy("neighbour", policy("neighbour", account="neighbour"))
    until(lambda: caller.prove(nonce).policies != before)
    answer = caller.prove(nonce)
    assert appraised(kms, answer, nonce, caller.spki).accepted
    folder = kms.second.site.folder
    loaded = load_policies(folder / "policies", folder / "guests", {"prod": False})
    assert answer.policies == policies_digest(loaded.value)


def test_pods_that_wait_for_firmware_keep_no_attestation_out(
    hierarchy: Hierarchy, issuer: Issuer, tmp_path: Path
) -> None:
    """A crowd, or one attacker with as many connections, fills the places of this call and of no other."""
    with socket.create_server(("127.0.0.1", 0)) as hangs:
        site = make_attesting_site(tmp_path, hierarchy, issuer, f"http://127.0.0.1:{hangs.getsockname()[1]}")
        with verifier(site) as running:
            # Firmware hangs for one of them, or for the probe at the start; all others wait for the next call.
            crowd = [Caller(running) for _ in range(MOST_WAITING + 2)]
            refused: list[str] = []

            def ask(caller: Caller) -> None:
                with contextlib.suppress(OSError, http.client.HTTPException):
                    refused.append(caller.call(body=write_attested(bytes(32))).error.problem)

            for caller in crowd:
                threading.Thread(target=ask, args=(caller,), daemon=True).start()
            until(lambda: refused)
            client = running.client()
            assert client.nonce()
            assert client.attest(b"{}").status == 400
            client.close()
            # Unless a slow machine let a whole call pass meanwhile.
            assert set(refused) <= {"TemporarilyUnavailable", "EvidenceUnavailable"}


def test_a_verifier_without_evidence_says_so_and_a_pod_waits(
    kms: Kms, hierarchy: Hierarchy, issuer: Issuer, tmp_path: Path
) -> None:
    address = f"unix:{tmp_path / 'machine.sock'}"
    site = make_attesting_site(tmp_path, hierarchy, issuer, address)
    site.settings["perSource"] = {"burst": 6, "perSecond": 0.01}
    kms.signer.sign(site)
    with verifier(site) as running:
        until(lambda: running.events("cannot_attest_itself"))
        assert "machine.sock" in running.events("cannot_attest_itself")[0]["detail"]
        until(lambda: metrics(running).get('morphisms_attests_itself{simulated="false",source="none"}') == 0)
        caller = Caller(running)
        answer = caller.call(body=write_attested(bytes(32)))
        assert (answer.status, answer.error.problem) == (503, "EvidenceUnavailable")
        assert answer.headers["retry-after"] == "2"
        # The probes say nothing about it: pods that do not demand it are served.
        assert caller.call("GET", path="/readyz").status == 200
        for _ in range(5):
            caller.call(body=write_attested(bytes(32)))
        paced = caller.call(body=write_attested(bytes(32)))
        assert (paced.status, paced.error.problem) == (503, "TemporarilyUnavailable")
        assert len(running.events("cannot_attest_itself")) == 1, "a flood does not fill the log"
        # The exposition is made once a second.
        until(lambda: metrics(running).get('morphisms_source_refusals_total{call="attested"}') == 1)
        # The pace of this call is its own.
        assert Caller(running).call("POST", b"{}", "/kbs/v0/attest").status == 400


def test_a_verifier_that_is_not_asked_to_attest_itself_answers_404(
    kms: Kms, hierarchy: Hierarchy, issuer: Issuer, machine: str, tmp_path: Path
) -> None:
    site = make_attesting_site(tmp_path, hierarchy, issuer, machine)
    del site.settings["attest"]
    with verifier(site) as running:
        assert Caller(running).call(body=write_attested(bytes(32))).status == 404
        assert running.events("does_not_attest_itself")
