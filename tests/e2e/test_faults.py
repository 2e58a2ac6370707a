"""Faults, each with the answer written beforehand: how `morphisms-init` ends, and what a consumer sees afterwards.

Each fault meets a pod that has published once already, as a pod does whose sandbox was made anew: the old version stays
whole, or the new one is whole.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from sidecar.reasons import Exit
from tests.attestation.verifier.process import Verifier
from tests.e2e.site import DB, write_password
from tests.sidecar.clock import Clock
from tests.sidecar.front import Request, Spoilt, front
from tests.sidecar.pod import CANARY, Ended, Pod, clean, refused
from tests.support.paths import ROOT
from tests.support.raft import RaftOpenBao
from tests.support.until import until


@dataclass(frozen=True)
class Answer:
    """`published`: the secret's version that is visible afterwards. `revoked`: whether the token was given back."""

    exit: Exit
    reason: str = ""
    published: str = "new"
    revoked: bool = True


ANSWERS: Final = {
    "Vault sealed at the login, for longer than the deadline": Answer(
        Exit.VERIFIER_UNREACHABLE, "verifier-vault-sealed", published="old", revoked=False
    ),
    "Vault sealed at the login, unsealed in time": Answer(Exit.PUBLISHED),
    "Vault sealed between login and read, unsealed in time": Answer(Exit.PUBLISHED),
    "Vault sealed between login and read, for longer than the deadline": Answer(
        Exit.VAULT_UNREACHABLE, "vault-busy", published="old", revoked=False
    ),
    "Vault killed between login and read, back in time": Answer(Exit.PUBLISHED),
    "Vault killed after the last read": Answer(Exit.PUBLISHED, revoked=False),
    "token revoked between login and read": Answer(Exit.VAULT_REFUSED, "vault-refused", published="old", revoked=False),
    "secret deleted between login and read": Answer(Exit.SECRET_MISSING, "secret-missing", published="old"),
    "version destroyed between login and read": Answer(Exit.SECRET_MISSING, "secret-missing", published="old"),
    "memory volume full": Answer(Exit.NO_SPACE, "disk-full", published="old"),
    "plan of a newer version": Answer(Exit.CONFIGURATION, "plan", published="old", revoked=False),
}

# Where the other faults have their answers.
ELSEWHERE: Final = {
    "verifier killed between nonce and evidence": (
        "e2e/test_replicas.py::test_killed_in_the_middle_without_another_it_ends_as_unreachable"
    ),
    "verifier killed there, another replica": (
        "e2e/test_replicas.py::test_killed_between_nonce_and_evidence_the_other_is_asked_from_the_beginning"
    ),
    "verifier killed at the login, another replica": (
        "e2e/test_replicas.py::test_killed_while_it_logs_in_the_guest_begins_anew_with_the_other"
    ),
    "verifier restarted": "e2e/test_replicas.py::test_started_again_in_time_is_as_good_as_another",
    "Vault answers 503 a while": "sidecar/test_refusals.py::test_a_vault_that_recovers_before_the_deadline_is_used",
    "Vault sealed at the first read": "sidecar/test_refusals.py::test_a_sealed_vault_is_unreachable_at_the_deadline",
    "secret, version or key missing": "sidecar/test_refusals.py::test_a_missing_secret_version_or_key_is_named",
    "memory volume full, nothing there before": "sidecar/test_refusals.py::test_a_full_volume_shows_nothing",
    "plan that is not JSON": "sidecar/test_refusals.py::test_a_plan_that_is_not_json_is_refused",
    "key service asks for patience": "e2e/test_key_service.py::test_pods_wait_out_a_key_service_that_limits",
    "key service refuses for long": "e2e/test_key_service.py::test_a_key_service_that_keeps_refusing_fails_the_pod",
    "guest's clock off": "e2e/test_clocks.py::test_a_guest_whose_clock_is_minutes_off_gets_its_secrets",
    "guest's clock days off": "e2e/test_clocks.py::test_a_guest_whose_clock_is_days_off_is_told_so",
    "verifier's clock off": "e2e/test_clocks.py::test_a_verifier_whose_clock_is_off_serves_no_guest",
    "SIGTERM at every stage": "e2e/test_shutdown.py::test_sigterm_at_each_stage",
    "SIGTERM at 50 moments": "e2e/test_shutdown.py::test_sigterm_at_fifty_moments",
    "Vault sealed while renewing": "e2e/test_outages.py::test_vault_away_for_a_while",
    "token revoked while renewing": "sidecar/test_lost_access.py::test_a_token_that_is_revoked_is_replaced",
    "secret deleted while renewing": "sidecar/test_lost_access.py::test_a_deleted_secret_keeps_its_last_version",
    "version destroyed while renewing": "sidecar/test_lost_access.py::test_a_destroyed_version_keeps_its_last_content",
    "SIGKILL": "sidecar/test_shutdown.py::test_sigkill_never_leaves_half",
}


@pytest.mark.parametrize("where", ELSEWHERE.values())
def test_the_table_names_tests_that_exist(where: str) -> None:
    file, _, name = where.partition("::")
    text = (ROOT / "tests" / file).read_text()
    assert re.search(rf"^def {name}\(", text, re.MULTILINE), where


@pytest.fixture
def published_pod(pod: Pod, bao: RaftOpenBao) -> Pod:
    """A pod that has published once, and whose secret has changed since."""
    write_password(bao, "old")
    assert pod.run().code == 0
    write_password(bao, "new")
    return pod


@pytest.fixture
def nobody_left_behind(bao: RaftOpenBao) -> Callable[[], set[str]]:
    """Tokens that have come to be since the test began."""
    before = bao.accessors()
    return lambda: bao.accessors() - before


def answered(fault: str, pod: Pod, ended: Ended) -> None:
    """As the table says."""
    answer = ANSWERS[fault]
    if answer.exit is Exit.PUBLISHED:
        assert ended.code == 0, ended.stderr
        clean(ended)
    else:
        refused(ended, answer.exit, answer.reason)
    assert (pod.secrets / "password").read_text() == f"{CANARY}-{answer.published}"
    assert bool(ended.named("token_revoked")) is answer.revoked
    hidden = [each.name for each in pod.secrets.iterdir() if each.name.startswith("..")]
    assert hidden == ["..data"], "nothing written aside is left"


class Once:
    """Does something to Vault when the first read comes by, before Vault sees it."""

    def __init__(self, do: Callable[[], object], path: str = "/data/") -> None:
        self._do = do
        self._path = path
        self._done = False
        self.happened = threading.Event()

    def __call__(self, request: Request, _seen: Sequence[Request]) -> Spoilt | None:
        if self._path in request.path and not self._done:
            self._done = True
            self._do()
            self.happened.set()
        return None


def run_with(pod: Pod, bao: RaftOpenBao, folder: Path, once: Once, *, during: Callable[[], object] = int) -> Ended:
    """A run whose way to Vault leads through a front with this fault; `during`: done once the fault has come."""
    with front(folder / "front", (bao.port, bao.ca), once) as fronted:
        pod.change(vault=pod.plan.vault._replace(url=fronted.url, ca=fronted.ca))
        process = pod.start()
        assert once.happened.wait(120)
        during()
        return pod.end(process)


# --- Vault --------------------------------------------------------------------------------------------------------


def test_sealed_at_the_login_for_longer(
    published_pod: Pod, bao: RaftOpenBao, verifier_process: Verifier, hurry: Clock
) -> None:
    published_pod.change(deadline_seconds=20)
    bao.seal()
    try:
        ended = published_pod.run()
    finally:
        bao.unseal()
    answered("Vault sealed at the login, for longer than the deadline", published_pod, ended)
    identifier = ended.events[-1]["correlation_id"]
    assert identifier, "the verifier believed the guest: its id is in the last line"
    assert {each["reason"] for each in verifier_process.events("login", identifier)} == {"vault-sealed"}


def test_sealed_at_the_login_unsealed_in_time(
    published_pod: Pod, bao: RaftOpenBao, nobody_left_behind: Callable[[], set[str]]
) -> None:
    bao.seal()
    process = published_pod.start()
    assert process.stderr is not None
    lines = []
    try:
        for line in process.stderr:
            lines.append(line)
            if '"retry"' in line:
                break
    finally:
        bao.unseal()
    ended = published_pod.end(process)
    ended.stderr = "".join(lines) + ended.stderr
    answered("Vault sealed at the login, unsealed in time", published_pod, ended)
    until(lambda: nobody_left_behind() == set())


def test_sealed_at_the_read_unsealed_in_time(
    published_pod: Pod, bao: RaftOpenBao, tmp_path: Path, nobody_left_behind: Callable[[], set[str]]
) -> None:
    ended = run_with(published_pod, bao, tmp_path, Once(bao.seal), during=bao.unseal)
    answered("Vault sealed between login and read, unsealed in time", published_pod, ended)
    until(lambda: nobody_left_behind() == set())


def test_sealed_at_the_read_for_longer(published_pod: Pod, bao: RaftOpenBao, tmp_path: Path, hurry: Clock) -> None:
    try:
        ended = run_with(published_pod, bao, tmp_path, Once(bao.seal))
    finally:
        bao.unseal()
    answered("Vault sealed between login and read, for longer than the deadline", published_pod, ended)
    assert ended.named("token_not_revoked"), "and it says so"


def test_killed_and_back_in_time(
    published_pod: Pod, bao: RaftOpenBao, tmp_path: Path, nobody_left_behind: Callable[[], set[str]]
) -> None:
    def back() -> None:
        bao.start()
        bao.unseal()

    ended = run_with(published_pod, bao, tmp_path, Once(bao.kill), during=back)
    answered("Vault killed between login and read, back in time", published_pod, ended)
    # The token outlived Vault's restart, and was given back.
    until(lambda: nobody_left_behind() == set())


def test_killed_after_the_last_read(published_pod: Pod, bao: RaftOpenBao, tmp_path: Path, hurry: Clock) -> None:
    try:
        ended = run_with(published_pod, bao, tmp_path, Once(bao.kill, "revoke-self"))
    finally:
        bao.start()
        bao.unseal()
    answered("Vault killed after the last read", published_pod, ended)
    assert ended.named("token_not_revoked"), "and it says so"


def test_token_revoked(published_pod: Pod, bao: RaftOpenBao, tmp_path: Path) -> None:
    before = bao.accessors()

    def revoke() -> None:
        (accessor,) = bao.accessors() - before
        bao.done("POST", "auth/token/revoke-accessor", {"accessor": accessor})

    ended = run_with(published_pod, bao, tmp_path, Once(revoke))
    answered("token revoked between login and read", published_pod, ended)
    until(lambda: bao.accessors() <= before)


def test_secret_deleted(published_pod: Pod, bao: RaftOpenBao, tmp_path: Path) -> None:
    rest = DB.removeprefix("secret/")
    ended = run_with(published_pod, bao, tmp_path, Once(lambda: bao.done("DELETE", f"secret/data/{rest}")))
    answered("secret deleted between login and read", published_pod, ended)


def test_version_destroyed(published_pod: Pod, bao: RaftOpenBao, tmp_path: Path) -> None:
    rest = DB.removeprefix("secret/")
    newest = bao.done("GET", f"secret/metadata/{rest}")["data"]["current_version"]
    published_pod.change(secrets=(published_pod.plan.secrets[0]._replace(version=newest),))

    def destroy() -> None:
        bao.done("PUT", f"secret/destroy/{rest}", {"versions": [newest]})

    ended = run_with(published_pod, bao, tmp_path, Once(destroy))
    answered("version destroyed between login and read", published_pod, ended)


# --- the pod ------------------------------------------------------------------------------------------------------


def test_memory_volume_full(
    small_volume: None, published_pod: Pod, bao: RaftOpenBao, nobody_left_behind: Callable[[], set[str]]
) -> None:
    path = f"{DB}-large"
    bao.done("POST", path.replace("secret/", "secret/data/", 1), {"data": {"text": CANARY * 15_000}})
    large = published_pod.plan.secrets[0]._replace(name="large", path=path, file="large", key="text")
    published_pod.change(secrets=(*published_pod.plan.secrets, large))
    answered("memory volume full", published_pod, published_pod.run())
    assert not (published_pod.secrets / "large").exists()
    until(lambda: nobody_left_behind() == set())


def test_plan_of_a_newer_version(published_pod: Pod) -> None:
    from plan.codec import write_plan

    newer = write_plan(published_pod.plan).replace('"version":1,', '"version":3,')
    assert '"version":3,' in newer
    ended = published_pod.run(newer)
    answered("plan of a newer version", published_pod, ended)
    assert "use the sidecar image that the webhook names" in ended.events[-1]["detail"]
