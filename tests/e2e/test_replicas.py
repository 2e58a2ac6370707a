"""Two verifiers behind one address: neither knows the other's nonces and bearers, and a pod survives either of them.

The address is a TCP forwarder, the machine that makes evidence and the way to OpenBao are behind others: where bytes
wait, a verifier can be killed at a known step of a handshake.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from attestation.simulator.device import Device
from attestation.simulator.hierarchy import Hierarchy
from kbs.ephemeral_key import EphemeralKey
from kbs.guest import open_token, read_attest_answer, read_correlation_id, write_additional_evidence, write_attest
from kbs.messages import binding
from plan.document import EvidenceSource
from sidecar.reasons import Exit
from tests.attestation.verifier.guest import document
from tests.attestation.verifier.process import HOST_DATA, Site, Verifier, verifier
from tests.attestation.verifier.tokens import Issuer
from tests.e2e.forwarder import Forwarder, forwarder
from tests.e2e.site import NewPod, replica
from tests.sidecar.clock import Clock
from tests.sidecar.pod import CANARY, Pod, clean, refused
from tests.support.raft import RaftOpenBao
from tests.support.until import until


@dataclass
class Replicas:
    """`first` has a way of its own to OpenBao and is asked first; `second` is when that one is gone."""

    first: Verifier
    second: Verifier
    front: Forwarder
    first_to_vault: Forwarder

    def kill_first(self) -> None:
        self.first.process.kill()
        self.first.process.wait()


@pytest.fixture
def patience() -> float:
    """Seconds that the first verifier waits for Vault: the most, but where a test is about what happens then."""
    return 10.0


IMPATIENT = pytest.mark.parametrize("patience", [2.0])


@pytest.fixture
def replicas(
    tmp_path: Path,
    site: Site,
    verifier_process: Verifier,
    bao: RaftOpenBao,
    hierarchy: Hierarchy,
    issuer: Issuer,
    patience: float,
) -> Iterator[Replicas]:
    with contextlib.ExitStack() as stack:
        to_vault = stack.enter_context(forwarder(bao.port))
        mortal = replica(site, tmp_path / "first", hierarchy, issuer)
        mortal.settings["vault"] |= {"url": f"https://127.0.0.1:{to_vault.port}", "timeoutSeconds": patience}
        first = stack.enter_context(verifier(mortal))
        front = stack.enter_context(forwarder(first.port, verifier_process.port))
        yield Replicas(first, verifier_process, front, to_vault)


@pytest.fixture
def machine_behind(machine: str) -> Iterator[Forwarder]:
    """The way to the simulated machine."""
    with forwarder(int(machine.rpartition(":")[2])) as way:
        yield way


@pytest.fixture
def served_pod(pod: Pod, replicas: Replicas, machine_behind: Forwarder) -> Pod:
    pod.change(
        verifier=pod.plan.verifier._replace(url=f"https://127.0.0.1:{replicas.front.port}"),
        evidence=(EvidenceSource("simulated", f"http://127.0.0.1:{machine_behind.port}"),),
    )
    return pod


def has_its_secret(pod: Pod) -> bool:
    return (pod.secrets / "password").read_text().startswith(CANARY)


def test_each_step_is_for_the_replica_that_began(replicas: Replicas, hierarchy: Hierarchy, issuer: Issuer) -> None:
    first, second = replicas.first.client(), replicas.second.client()
    key, device = EphemeralKey(), Device(hierarchy, host_data=HOST_DATA)
    nonce = first.nonce()
    additional = write_additional_evidence(issuer.token(uid="each-step"))
    body = write_attest(nonce, key.public, document(device, binding(nonce, key.public, additional)), additional)
    foreign = second.attest(body)
    assert (foreign.status, foreign.error.problem) == (503, "SessionUnknown")
    accepted = first.attest(body)
    assert accepted.status == 200, accepted.error
    bearer = read_attest_answer(accepted.body)
    foreign = second.token(bearer)
    assert (foreign.status, foreign.error.problem) == (401, "SessionUnknown")
    answer = first.token(bearer)
    assert open_token(answer.body, key, nonce).token
    identifier = read_correlation_id(accepted.body)
    assert len(replicas.first.events("attestation", identifier)) == 1
    assert len(replicas.first.events("login", identifier)) == 1, "one id from the evidence to the login"
    first.close()
    second.close()


def test_killed_between_nonce_and_evidence_the_other_is_asked_from_the_beginning(
    served_pod: Pod, replicas: Replicas, machine_behind: Forwarder, bao: RaftOpenBao
) -> None:
    before = bao.accessors()
    machine_behind.hold()
    process = served_pod.start()
    assert machine_behind.held.wait(120), "the pod has its nonce and waits for evidence"
    replicas.kill_first()
    machine_behind.release()
    ended = served_pod.end(process)
    assert ended.code == 0, ended.stderr
    assert has_its_secret(served_pod)
    assert [each["reason"] for each in ended.named("retry")] == ["verifier-unreachable"]
    assert replicas.front.taken[0] == replicas.first.port
    assert replicas.front.taken[-1] == replicas.second.port
    until(lambda: bao.accessors() <= before)
    clean(ended)


def test_killed_while_it_logs_in_the_guest_begins_anew_with_the_other(
    served_pod: Pod, replicas: Replicas, bao: RaftOpenBao
) -> None:
    before = bao.accessors()
    replicas.first_to_vault.hold()
    process = served_pod.start()
    until(lambda: replicas.first.events("attestation"))  # so the pod has its bearer, and its token has to wait
    replicas.kill_first()
    ended = served_pod.end(process)
    assert ended.code == 0, ended.stderr
    assert has_its_secret(served_pod)
    attested = ended.named("attested")
    assert len(attested) == 1, "the first attestation came to nothing"
    identifier = attested[0]["correlation_id"]
    assert [each["reason"] for each in ended.named("retry")] == ["verifier-unreachable", "verifier-session"]
    assert len(replicas.second.events("attestation", identifier)) == 1
    assert len(replicas.second.events("login", identifier)) == 1
    until(lambda: bao.accessors() <= before)
    clean(ended)


@IMPATIENT
def test_the_three_calls_and_their_retries_are_on_one_connection(served_pod: Pod, replicas: Replicas) -> None:
    """Another replica does not know the bearer, so a busy one is asked again where it is."""
    replicas.first_to_vault.hold()
    process = served_pod.start()
    until(lambda: "vault-slow" in {each["reason"] for each in replicas.first.events("login")})
    replicas.first_to_vault.release()
    ended = served_pod.end(process)
    assert ended.code == 0, ended.stderr
    assert {each["reason"] for each in ended.named("retry")} == {"verifier-vault-unavailable"}
    assert replicas.front.taken == [replicas.first.port]
    assert len(replicas.first.events("attestation")) == 1, "the same bearer serves once Vault answers"


def test_killed_in_the_middle_without_another_it_ends_as_unreachable(
    served_pod: Pod, replicas: Replicas, machine_behind: Forwarder, hurry: Clock
) -> None:
    replicas.front.targets.remove(replicas.second.port)
    machine_behind.hold()
    process = served_pod.start()
    assert machine_behind.held.wait(120)
    replicas.kill_first()
    machine_behind.release()
    refused(served_pod.end(process), Exit.VERIFIER_UNREACHABLE, "verifier-unreachable")
    assert served_pod.published() == []


def test_started_again_in_time_is_as_good_as_another(
    served_pod: Pod, replicas: Replicas, machine_behind: Forwarder
) -> None:
    replicas.front.targets.remove(replicas.second.port)
    machine_behind.hold()
    process = served_pod.start()
    assert machine_behind.held.wait(120)
    replicas.kill_first()
    machine_behind.release()
    with verifier(replicas.first.site, "again") as again:
        replicas.front.targets.append(again.port)
        ended = served_pod.end(process)
    assert ended.code == 0, ended.stderr
    assert has_its_secret(served_pod)


@IMPATIENT
def test_a_login_whose_answer_comes_too_late_leaves_no_token(
    served_pod: Pod, replicas: Replicas, bao: RaftOpenBao
) -> None:
    """Vault has made the token, the verifier has given up, and the pod gets another when it asks again."""
    before = bao.accessors()
    replicas.front.targets.remove(replicas.second.port)
    assert served_pod.run().code == 0, "from now on there is a connection to Vault"
    replicas.first_to_vault.hold_answers()
    process = served_pod.start()
    until(lambda: bao.accessors() - before)
    until(lambda: "vault-slow" in {each["reason"] for each in replicas.first.events("login")})
    replicas.first_to_vault.release()
    ended = served_pod.end(process)
    assert ended.code == 0, ended.stderr
    assert has_its_secret(served_pod)
    until(lambda: bao.accessors() <= before)
    # Vault forgets a token before the verifier hears that it did. A slow machine has more than one such login.
    until(lambda: replicas.first.events("late_login"))
    assert all(told["revoked"] is True for told in replicas.first.events("late_login"))


@pytest.mark.slow
def test_many_pods_start_while_one_of_two_dies(new_pod: NewPod, replicas: Replicas, bao: RaftOpenBao) -> None:
    before = bao.accessors()
    pods = [new_pod() for _ in range(12)]
    for each in pods:
        each.change(verifier=each.plan.verifier._replace(url=f"https://127.0.0.1:{replicas.front.port}"))
    replicas.first_to_vault.hold()
    processes = [each.start() for each in pods]
    assert replicas.first_to_vault.held.wait(120), "one at least is in the middle of it"
    replicas.kill_first()
    for each, process in zip(pods, processes, strict=True):
        ended = each.end(process)
        assert ended.code == 0, ended.stderr
        assert has_its_secret(each)
    until(lambda: bao.accessors() <= before)
