"""A sidecar that stays, while Vault is sealed, killed or started again, verifiers die, and the memory volume is full.

The answers, written beforehand:

    fault                                         what is published          what happens to the sidecar
    Vault sealed, or killed and back              stays, then follows        stays well for the kubelet; same token
    Vault away beyond the token's life            stays, then follows        attests again when Vault is back
    Vault away at SIGTERM                         stays                      ends in the grace period, exit 0, and says
                                                                             that its token lives on
    verifier killed at re-attestation             stays                      tries until it is back; old token meanwhile
    verifier killed, another replica              stays                      is served by the other at once
    memory volume full at a rotation              old version, usable        trouble; follows when there is room
    killed (SIGKILL) and started again            stays, then follows        the killed one's token ends by its own life
    SIGTERM at random moments while it rotates    one version, whole         exit 0 once published, no token left
    many at once, and all rotate                  all follow                 all stay

Token revoked, secret deleted, version destroyed, permission and belief lost: tests/sidecar/test_lost_access.py.
"""

from __future__ import annotations

import contextlib
import json
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final
from uuid import uuid4

import pytest

from attestation.simulator.hierarchy import Hierarchy
from plan.document import EnvVariable, SecretFile
from sidecar.paths import PodPaths
from sidecar.reasons import Exit
from sidecar.renew.schedule import LONGEST_PAUSE
from tests.attestation.verifier.process import Site, Verifier, verifier
from tests.attestation.verifier.tokens import Issuer
from tests.e2e.forwarder import forwarder
from tests.e2e.site import DB, NewPod, replica, write_password
from tests.sidecar.clock import Clock
from tests.sidecar.pod import CANARY, Pod, clean
from tests.sidecar.resident import Resident, resident
from tests.support.raft import RaftOpenBao
from tests.support.until import until

_REREAD: Final = 0.4  # seconds that a KV secret may be old
LIFE: Final = 600  # seconds, of a token, which a pod's clock lets pass
# When such a token is to be replaced, up to a twentieth earlier.
DUE: Final = LIFE * 2 / 3
_GRACE: Final = 30.0  # Kubernetes' default
_RANDOM: Final = random.Random(30)
_STOPPED_AT_ONCE: Final = "import os, signal\nos.kill(os.getpid(), signal.SIGTERM)\n"


@pytest.fixture
def staying(pod: Pod, bao: RaftOpenBao) -> Pod:
    """A pod with a file and a variable of the secret's first version."""
    write_password(bao, "first")
    pod.change(env=(EnvVariable("web", "PASSWORD", path=DB, key="password"),))
    return pod


@pytest.fixture
def one_life(bao: RaftOpenBao) -> Iterator[None]:
    """Tokens that live for LIFE, however often they are renewed."""
    bao.write_role(token_ttl=f"{LIFE}s", token_explicit_max_ttl=f"{LIFE}s")
    yield
    bao.write_role()


@pytest.fixture
def nobody_left(bao: RaftOpenBao) -> Callable[[], set[str]]:
    """Tokens that have come to be since the test began."""
    before = bao.accessors()
    return lambda: bao.accessors() - before


def shows(pod: Pod, name: str) -> bool:
    """Both volumes show this version, and are usable."""
    text = f"{CANARY}-{name}"
    in_file = (pod.secrets / "password").read_text() == text
    return in_file and pod.variables("web") == {"PASSWORD": text} and (pod.run_folder / "ready").exists()


def is_well_for_the_kubelet(sidecar: Resident) -> bool:
    """An outage is no reason to kill a pod."""
    return sidecar.probe("/livez")[0] == sidecar.probe("/startupz")[0] == 200


def back(bao: RaftOpenBao) -> None:
    """After `kill`."""
    bao.start()
    bao.unseal()


AWAY: Final[dict[str, tuple[Callable[[RaftOpenBao], None], Callable[[RaftOpenBao], None]]]] = {
    "sealed": (RaftOpenBao.seal, RaftOpenBao.unseal),
    "killed": (RaftOpenBao.kill, back),
}


@pytest.mark.parametrize("how", AWAY)
def test_vault_away_for_a_while(how: str, staying: Pod, bao: RaftOpenBao, nobody_left: Callable[[], set[str]]) -> None:
    leave, come_back = AWAY[how]
    with resident(staying, reread=_REREAD) as sidecar:
        sidecar.wait("published")
        leave(bao)
        try:
            (trouble,) = sidecar.wait("trouble")
            assert trouble["subject"] == "vault"
            assert shows(staying, "first")
            assert is_well_for_the_kubelet(sidecar)
        finally:
            come_back(bao)
        sidecar.wait("recovered", subject="vault")
        write_password(bao, "second")
        sidecar.wait("published", 2)
        assert shows(staying, "second")
        assert len(sidecar.named("attested")) == 1, "the token outlived the outage"
        assert len(sidecar.named("trouble")) == 1, "told once, not at each try"
        ended = sidecar.stop()
    assert ended.code == 0, ended.stderr
    until(lambda: nobody_left() == set())
    clean(ended)


@pytest.mark.slow
def test_vault_away_beyond_the_tokens_life(
    staying: Pod, bao: RaftOpenBao, clock: Clock, nobody_left: Callable[[], set[str]]
) -> None:
    with resident(staying) as sidecar:
        sidecar.wait("published")
        (accessor,) = nobody_left()
        bao.done("POST", "auth/token/revoke-accessor", {"accessor": accessor})
        bao.seal()
        try:
            clock.advance(LIFE)
            sidecar.wait("trouble", subject="vault")
            sidecar.wait("trouble", subject="verifier")
            assert sidecar.process.poll() is None, "its token's longest life is over, and it waits"
            assert shows(staying, "first")
            assert is_well_for_the_kubelet(sidecar)
        finally:
            bao.unseal()
        write_password(bao, "second")
        sidecar.wait("published", 2)
        assert shows(staying, "second")
        sidecar.wait("attested", 2)
        until(lambda: not sidecar.probe("/livez")[1]["troubles"])
        ended = sidecar.stop()
    assert ended.code == 0, ended.stderr
    until(lambda: nobody_left() == set())
    clean(ended)


def test_vault_away_at_the_end(staying: Pod, bao: RaftOpenBao) -> None:
    staying.revocation_seconds = PodPaths().revocation_seconds
    assert staying.revocation_seconds < _GRACE / 2
    with resident(staying) as sidecar:
        sidecar.wait("published")
        bao.seal()
        try:
            ended = sidecar.stop()
        finally:
            bao.unseal()
    assert ended.code == 0, ended.stderr
    assert ended.named("token_not_revoked"), "and it says so"
    assert shows(staying, "first")
    clean(ended)


@pytest.mark.slow
def test_a_verifier_killed_before_its_pods_come_again(
    staying: Pod,
    tmp_path: Path,
    site: Site,
    hierarchy: Hierarchy,
    issuer: Issuer,
    bao: RaftOpenBao,
    one_life: None,
    clock: Clock,
    nobody_left: Callable[[], set[str]],
) -> None:
    mortal = replica(site, tmp_path / "mortal", hierarchy, issuer)
    with forwarder() as front:
        staying.change(verifier=staying.plan.verifier._replace(url=f"https://127.0.0.1:{front.port}"))
        with contextlib.ExitStack() as first, resident(staying, reread=_REREAD) as sidecar:
            front.targets.append(first.enter_context(verifier(mortal)).port)
            sidecar.wait("published")
            first.close()
            clock.advance(DUE)
            (trouble,) = sidecar.wait("trouble", subject="verifier")
            assert trouble["reason"] == "verifier-unreachable"
            write_password(bao, "second")
            sidecar.wait("published", 2)
            assert shows(staying, "second"), "the old token is good while it lives"
            with verifier(mortal, "again") as again:
                front.targets.append(again.port)
                clock.advance(LONGEST_PAUSE)
                sidecar.wait("recovered", subject="verifier")
                assert shows(staying, "second")
                ended = sidecar.stop()
    assert ended.code == 0, ended.stderr
    until(lambda: nobody_left() == set())
    clean(ended)


@pytest.mark.slow
def test_a_verifier_killed_where_there_is_another(
    staying: Pod,
    tmp_path: Path,
    site: Site,
    verifier_process: Verifier,
    hierarchy: Hierarchy,
    issuer: Issuer,
    bao: RaftOpenBao,
    one_life: None,
    clock: Clock,
    nobody_left: Callable[[], set[str]],
) -> None:
    with (
        verifier(replica(site, tmp_path / "first", hierarchy, issuer)) as first,
        forwarder(first.port, verifier_process.port) as front,
    ):
        staying.change(verifier=staying.plan.verifier._replace(url=f"https://127.0.0.1:{front.port}"))
        with resident(staying) as sidecar:
            sidecar.wait("published")
            first.process.kill()
            first.process.wait()
            clock.advance(DUE)
            again = sidecar.wait("attested", 2)[1]
            ended = sidecar.stop()
    assert ended.code == 0, ended.stderr
    until(lambda: len(verifier_process.events("attestation", again["correlation_id"])) == 1)
    assert not ended.named("trouble")
    until(lambda: nobody_left() == set())


# --- the pod ------------------------------------------------------------------------------------------------------


def test_no_room_for_a_rotated_secret(
    small_volume: None, staying: Pod, bao: RaftOpenBao, nobody_left: Callable[[], set[str]]
) -> None:
    staying.change(secrets=(*staying.plan.secrets, SecretFile("large", DB, "large", key="user")))
    with resident(staying, reread=_REREAD) as sidecar:
        sidecar.wait("published")
        path = DB.replace("secret/", "secret/data/", 1)
        bao.done("POST", path, {"data": {"user": "x" * 200_000, "password": f"{CANARY}-second"}})
        (trouble,) = sidecar.wait("trouble")
        assert trouble["reason"] == "disk-full"
        assert shows(staying, "first"), "all of it, and usable by a container that starts now"
        assert (staying.secrets / "large").read_text() == "alice"
        assert is_well_for_the_kubelet(sidecar)
        write_password(bao, "third")
        sidecar.wait("recovered")
        assert shows(staying, "third")
        ended = sidecar.stop()
    assert ended.code == 0, ended.stderr
    until(lambda: nobody_left() == set())
    clean(ended)


def test_killed_and_started_again(staying: Pod, bao: RaftOpenBao, nobody_left: Callable[[], set[str]]) -> None:
    with resident(staying) as sidecar:
        sidecar.wait("published")
        sidecar.stop(signal.SIGKILL)
    orphans = nobody_left()
    assert len(orphans) == 1, "nobody can give it back: it ends with its time to live"
    assert shows(staying, "first")
    write_password(bao, "second")
    with resident(staying) as sidecar:
        sidecar.wait("published")
        assert shows(staying, "second")
        assert sidecar.stop().code == 0
    assert nobody_left() == orphans
    for accessor in orphans:
        bao.done("POST", "auth/token/revoke-accessor", {"accessor": accessor})


@pytest.mark.slow
def test_sigterm_at_random_moments_while_it_rotates(
    staying: Pod, bao: RaftOpenBao, issuer: Issuer, nobody_left: Callable[[], set[str]]
) -> None:
    """Each time another version waits, half of them are changed once more while it runs.

    The first is stopped once it has published, and says about how long that takes here; the second by its first
    instruction.
    """
    staying.new_token = lambda: issuer.token(uid=str(uuid4()))
    files = 20
    staying.change(secrets=tuple(SecretFile(f"s{n}", DB, f"folder/s{n}") for n in range(files)))
    ends = []
    usual = 0.0
    for number in range(16):
        write_password(bao, f"{number}")
        began = time.monotonic()
        staying.code = _STOPPED_AT_ONCE if number == 1 else ""
        with resident(staying, reread=0.02) as sidecar:
            changes = threading.Timer(_RANDOM.uniform(0.5, 1.5) * usual, write_password, [bao, f"{number}-again"])
            if number % 2:
                changes.start()
            if number == 0:
                sidecar.wait("published")
                usual = time.monotonic() - began
            else:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    sidecar.process.wait(_RANDOM.uniform(0.3, 3) * usual)
            ended = sidecar.stop()
            if number % 2:
                changes.join()
        ends.append(ended.code)
        assert ended.code in (Exit.PUBLISHED, Exit.STOPPED, -signal.SIGTERM), ended.stderr
        assert ended.code == Exit.PUBLISHED or not ended.named("published"), ended.stderr
        until(lambda: nobody_left() == set())
        clean(ended)
        if (staying.run_folder / "ready").exists():
            folder = staying.secrets / "folder"
            (password,) = {json.loads(each.read_text())["password"] for each in folder.iterdir()}
            assert len(list(folder.iterdir())) == files
            assert staying.variables("web") == {"PASSWORD": password}
    print(f"16 sidecars: exit codes {sorted(ends)}")
    assert ends[:2] == [Exit.PUBLISHED, -signal.SIGTERM]


@pytest.mark.slow
def test_many_sidecars_all_publish_a_rotated_secret(
    new_pod: NewPod, bao: RaftOpenBao, nobody_left: Callable[[], set[str]]
) -> None:
    write_password(bao, "first")
    with contextlib.ExitStack() as stack:
        pods = [new_pod() for _ in range(12)]
        sidecars = [stack.enter_context(resident(each, reread=1.0)) for each in pods]
        for sidecar in sidecars:
            sidecar.wait("published")
        until(lambda: len(nobody_left()) == len(pods))
        write_password(bao, "second")
        for pod, sidecar in zip(pods, sidecars, strict=True):
            sidecar.wait("published", 2)
            assert (pod.secrets / "password").read_text() == f"{CANARY}-second"
        sizes = [sidecar.resident_bytes() / 2**20 for sidecar in sidecars]
        for sidecar in sidecars:
            sidecar.process.send_signal(signal.SIGTERM)
        assert [sidecar.end().code for sidecar in sidecars] == [0] * len(pods)
    print(f"12 sidecars stayed, each with {min(sizes):.0f} to {max(sizes):.0f} MB resident")
    until(lambda: nobody_left() == set())
