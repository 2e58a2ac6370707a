"""Vault and the verifier go away while a sidecar runs, and come back: what was published stays, and goes on afterwards.

OpenBao on raft storage, so that it outlives its process; both behind forwarders, so that they come back in place.
"""

from __future__ import annotations

import itertools
import json
import signal
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from uuid import uuid4

import pytest

from attestation.simulator.hierarchy import Hierarchy
from plan.document import EvidenceSource, Plan, SecretFile, Vault, Workload
from plan.document import Verifier as VerifierPlan
from sidecar.paths import PodPaths
from sidecar.renew.schedule import FIRST_PAUSE, LONGEST_PAUSE
from tests.attestation.verifier.process import Verifier, make_site, policy, verifier
from tests.attestation.verifier.tokens import Issuer
from tests.e2e.forwarder import Forwarder, forwarder
from tests.sidecar.clock import Clock
from tests.sidecar.front import Request, Spoilt, front
from tests.sidecar.pod import CANARY, HOME, Pod, clean
from tests.sidecar.resident import Resident, resident
from tests.sidecar.secrets import v2
from tests.support.raft import RaftOpenBao, raft_openbao
from tests.support.until import until

pytestmark = pytest.mark.slow

LIFE = 600  # seconds, of a token, which the pod's clock lets pass
ONCE = {"token_ttl": f"{LIFE}s", "token_explicit_max_ttl": f"{LIFE}s"}
# When a token that lives once is to be replaced, up to a twentieth earlier; a sidecar that could not ask Vault for how
# long its token lives at most waits for the token's end.
DUE = LIFE * 2 / 3


@pytest.fixture(scope="module")
def raft(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RaftOpenBao]:
    with raft_openbao(tmp_path_factory.mktemp("raft")) as server:
        yield server


@pytest.fixture(scope="module")
def raft_verifier(
    tmp_path_factory: pytest.TempPathFactory, hierarchy: Hierarchy, issuer: Issuer, raft: RaftOpenBao
) -> Iterator[Verifier]:
    site = make_site(tmp_path_factory.mktemp("verifier"), hierarchy, issuer, raft.url)
    site.settings["vault"] |= {"ca": str(raft.ca_path), "timeoutSeconds": 10.0}
    site.write_policy("payments", policy())
    raft.trust(site.public_keys)
    with verifier(site) as process:
        yield process


@pytest.fixture
def way_to_vault(raft: RaftOpenBao) -> Iterator[Forwarder]:
    with forwarder(raft.port) as running:
        yield running


@pytest.fixture
def way_to_verifier(raft_verifier: Verifier) -> Iterator[Forwarder]:
    with forwarder(raft_verifier.port) as running:
        yield running


@pytest.fixture
def raft_pod(
    tmp_path: Path,
    helper: Path,
    machine: str,
    issuer: Issuer,
    raft: RaftOpenBao,
    raft_verifier: Verifier,
    way_to_vault: Forwarder,
    way_to_verifier: Forwarder,
) -> Pod:
    """A pod with one secret."""
    raft.write_role()
    write(raft, "before")
    ca = (raft_verifier.site.folder / "ca.crt").read_text()
    plan = Plan(
        workload=Workload("prod", "shop", "payments", "default"),
        evidence=(EvidenceSource("simulated", machine),),
        verifier=VerifierPlan(f"https://127.0.0.1:{way_to_verifier.port}", ca, "morphisms-verifier", ""),
        vault=Vault(f"https://127.0.0.1:{way_to_vault.port}", raft.ca, "", (("secret", 2),)),
        secrets=(SecretFile("password", f"{HOME}/db", "password", key="password"),),
        deadline_seconds=300,
    )
    uid = str(uuid4())  # the verifier counts how often one pod asks
    return Pod(tmp_path, helper, plan, lambda: issuer.token(uid=uid))


@pytest.fixture
def clock(raft_pod: Pod) -> Clock:
    """The pod's, which the test moves."""
    return raft_pod.move_clock()


def write(raft: RaftOpenBao, value: str) -> None:
    raft.done("POST", f"{v2(HOME)}/db", {"data": {"password": f"{CANARY}-{value}"}})


def shows(pod: Pod, value: str) -> None:
    assert (pod.secrets / "password").read_text() == f"{CANARY}-{value}"


def is_alive_and_troubled(sidecar: Resident) -> None:
    def is_troubled(path: str) -> bool:
        return bool(sidecar.probe(path)[1]["state"] == "troubled")

    for path in ("/livez", "/startupz"):
        until(partial(is_troubled, path))
        assert sidecar.probe(path)[0] == 200


def ends_well(sidecar: Resident, raft: RaftOpenBao, before: set[str]) -> None:
    """Each trouble was told once at its start and once at its end, and no token is left."""
    ended = sidecar.stop()
    assert ended.code == 0
    clean(ended)
    subjects = [each["subject"] for each in ended.named("trouble")]
    assert sorted(subjects) == sorted(each["subject"] for each in ended.named("recovered"))
    assert len(subjects) == len(set(subjects)), "one line when it begins, not one for each attempt"
    # The verifier revokes one that came too late for it; and Vault forgets one that has ended a moment later.
    until(lambda: raft.accessors() <= before)


def has_looked_up(sidecar: Resident, way_to_vault: Forwarder) -> None:
    """It has published, and knows how long its token lives: its first connection ends after that."""
    sidecar.wait("published")
    until(way_to_vault.is_idle)


def token_ends(raft: RaftOpenBao, before: set[str]) -> None:
    """The sidecar's token is good for nothing any more, as after its life."""
    (accessor,) = raft.accessors() - before
    raft.done("POST", "auth/token/revoke-accessor", {"accessor": accessor})


def test_vault_killed_and_started_again(raft_pod: Pod, raft: RaftOpenBao) -> None:
    before = raft.accessors()
    with resident(raft_pod, reread=0.3) as sidecar:
        sidecar.wait("published")
        raft.kill()
        try:
            assert sidecar.wait("trouble")[0]["reason"] == "vault-unreachable"
            shows(raft_pod, "before")
        finally:
            raft.start()
        is_alive_and_troubled(sidecar)
        raft.unseal()
        write(raft, "after")
        sidecar.wait("published", 2)
        sidecar.wait("recovered", subject="vault")
        shows(raft_pod, "after")
        assert len(sidecar.named("attested")) == 1, "the token has lived through it"
        ends_well(sidecar, raft, before)


def test_vault_sealed_for_longer_than_the_token_lives(
    raft_pod: Pod, raft: RaftOpenBao, way_to_vault: Forwarder, clock: Clock
) -> None:
    before = raft.accessors()
    with resident(raft_pod) as sidecar:
        has_looked_up(sidecar, way_to_vault)
        token_ends(raft, before)
        raft.seal()
        clock.advance(LIFE)
        try:
            assert sidecar.wait("trouble", subject="vault")[0]["reason"] == "vault-busy"
            # By its end the token is neither renewed nor replaced: the verifier cannot log in either.
            sidecar.wait("trouble", subject="verifier")
            shows(raft_pod, "before")
            is_alive_and_troubled(sidecar)
        finally:
            raft.unseal()
        write(raft, "after")
        sidecar.wait("attested", 2)
        sidecar.wait("published", 2)
        shows(raft_pod, "after")
        sidecar.wait("recovered", subject="verifier")
        ends_well(sidecar, raft, before)


def test_vault_that_hangs_does_not_keep_the_kubelet_waiting(
    raft_pod: Pod, raft: RaftOpenBao, way_to_vault: Forwarder
) -> None:
    raft_pod.revocation_seconds = PodPaths().revocation_seconds
    with resident(raft_pod, reread=0.3) as sidecar:
        sidecar.wait("published")
        way_to_vault.hold()
        assert way_to_vault.held.wait(120)
        for _ in range(5):
            assert sidecar.probe("/livez")[0] == 200
        assert not sidecar.named("trouble"), "the sidecar still waits for Vault"
        ended = sidecar.stop()
        assert ended.code == 0, "SIGTERM ends the wait"
        assert "expires with its time to live" in ended.named("token_not_revoked")[0]["detail"]
        shows(raft_pod, "before")


def test_the_verifier_is_away_when_it_is_time_to_attest_again(
    raft_pod: Pod, raft: RaftOpenBao, way_to_verifier: Forwarder, raft_verifier: Verifier, clock: Clock
) -> None:
    raft.write_role(**ONCE)
    before = raft.accessors()
    with resident(raft_pod, reread=0.3) as sidecar:
        sidecar.wait("published")
        way_to_verifier.targets.clear()
        clock.advance(DUE)
        assert sidecar.wait("trouble")[0]["reason"] == "verifier-unreachable"
        write(raft, "meanwhile")
        sidecar.wait("published", 2)
        shows(raft_pod, "meanwhile")
        is_alive_and_troubled(sidecar)
        way_to_verifier.targets.append(raft_verifier.port)
        sidecar.wait("recovered", subject="verifier")
        ends_well(sidecar, raft, before)


def test_both_are_away_for_long_and_the_token_dies(
    raft_pod: Pod,
    raft: RaftOpenBao,
    way_to_verifier: Forwarder,
    way_to_vault: Forwarder,
    raft_verifier: Verifier,
    clock: Clock,
) -> None:
    raft.write_role(**ONCE)
    before = raft.accessors()
    with resident(raft_pod, reread=0.3) as sidecar:
        sidecar.wait("published")
        has_looked_up(sidecar, way_to_vault)
        way_to_verifier.targets.clear()
        way_to_vault.targets.clear()
        way_to_vault.close()
        sidecar.wait("trouble", subject="vault")
        clock.advance(LIFE)
        sidecar.wait("trouble", subject="verifier")
        shows(raft_pod, "before")
        token_ends(raft, before)
        write(raft, "after")
        way_to_vault.targets.append(raft.port)
        sidecar.wait("trouble", subject="token")
        way_to_verifier.targets.append(raft_verifier.port)
        sidecar.wait("published", 2)
        shows(raft_pod, "after")
        sidecar.wait("recovered", subject="token")
        ends_well(sidecar, raft, before)


def test_a_token_that_could_not_be_given_back_is_tried_again(
    raft_pod: Pod, raft: RaftOpenBao, way_to_vault: Forwarder, way_to_verifier: Forwarder, clock: Clock
) -> None:
    """Vault is away from the sidecar, and not from the verifier: the new token cannot be used, nor be revoked."""
    raft.write_role(**ONCE)
    before = raft.accessors()
    with resident(raft_pod) as sidecar:
        sidecar.wait("published")
        way_to_vault.targets.clear()
        clock.advance(LIFE)
        sidecar.wait("trouble", subject="vault")
        sidecar.wait("attested", 2)
        assert len(raft.accessors() - before) == 2
        way_to_vault.targets.append(raft.port)
        sidecar.wait("token_revoked")
        sidecar.wait("recovered", subject="vault")
        ends_well(sidecar, raft, before)


def test_a_new_token_waits_for_vault_and_is_not_followed_by_others(
    raft_pod: Pod, raft: RaftOpenBao, way_to_vault: Forwarder, clock: Clock
) -> None:
    """Cut off from Vault, and not from the verifier: each token that is asked for would live on unused."""

    def has_taken(count: int) -> bool:
        return len(way_to_vault.taken) >= count

    raft.write_role(**ONCE)
    before = raft.accessors()
    with resident(raft_pod) as sidecar:
        sidecar.wait("published")
        way_to_vault.targets.clear()
        clock.advance(LIFE)
        sidecar.wait("attested", 2)
        for _ in range(4):
            more = len(way_to_vault.taken) + 1
            clock.advance(LONGEST_PAUSE)
            until(partial(has_taken, more))
        assert len(sidecar.named("attested")) == 2
        assert len(raft.accessors() - before) == 2
        way_to_vault.targets.append(raft.port)
        sidecar.wait("recovered", subject="vault")
        assert len(sidecar.named("attested")) == 2, "it is the one that is used then"
        ends_well(sidecar, raft, before)


def test_all_tokens_have_one_time_to_be_given_back(
    raft_pod: Pod, raft: RaftOpenBao, way_to_vault: Forwarder, clock: Clock
) -> None:
    raft.write_role(**ONCE)
    raft_pod.revocation_seconds = 6.0
    with resident(raft_pod) as sidecar:
        sidecar.wait("published")
        way_to_vault.targets.clear()
        clock.advance(LIFE)
        sidecar.wait("attested", 2)
        way_to_vault.hold()
        ended = sidecar.stop()
    assert ended.code == 0
    first, second = (each["uptime_ms"] / 1000 for each in ended.named("token_not_revoked"))
    assert second - first < raft_pod.revocation_seconds, "the second has none of its own"


def test_a_pod_token_is_read_anew_each_time(raft_pod: Pod, raft: RaftOpenBao, issuer: Issuer, clock: Clock) -> None:
    """The kubelet replaces it, and the one of the start has ended by the time it is needed again."""
    raft.write_role(**ONCE)
    with resident(raft_pod) as sidecar:
        sidecar.wait("published")
        (raft_pod.root / "token").write_text(issuer.token(expires_in=-3600))
        clock.advance(DUE)
        sidecar.wait("trouble", reason="verifier-refused")
        (raft_pod.root / "token").write_text(raft_pod.new_token())
        clock.advance(2 * FIRST_PAUSE)
        sidecar.wait("recovered", subject="attestation")
        assert sidecar.stop(signal.SIGINT).code == 0


def test_a_token_whose_maximum_is_its_first_life(
    raft_pod: Pod, raft: RaftOpenBao, clock: Clock, tmp_path: Path
) -> None:
    """It cannot be renewed for long, and is replaced in its time, not at each look."""

    def cut_short(request: Request, _seen: Sequence[Request]) -> Spoilt | None:
        rest = json.dumps({"auth": {"lease_duration": LIFE - int(DUE)}}).encode()
        return Spoilt(200, body=rest) if request.path.endswith("/renew-self") else None

    raft.write_role(**ONCE)
    with front(tmp_path / "front", (raft.port, raft.ca), cut_short) as fronted:
        raft_pod.change(secrets=(), vault=raft_pod.plan.vault._replace(url=fronted.url, ca=fronted.ca))
        with resident(raft_pod) as sidecar:
            sidecar.wait("published")
            for count in (2, 3):
                clock.advance(DUE)
                sidecar.wait("attested", count)
            times = [each["uptime_ms"] / 1000 for each in sidecar.named("attested")]
            assert all(later - earlier > 0.9 * DUE for earlier, later in itertools.pairwise(times))
            assert not sidecar.named("trouble"), "each was replaced before it expired"
            assert sidecar.stop().code == 0
