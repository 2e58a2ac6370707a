"""Each way to fail has its own exit code, reason and line, is as quick as it can be, and publishes nothing."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from kbs.messages import ATTEST_PATH, TOKEN_PATH, ErrorType
from kbs.verifier import write_error
from plan.codec import write_plan
from plan.document import EnvFrom, EnvVariable, EvidenceSource, SecretFile
from sidecar.reasons import Exit
from tests.attestation.verifier.process import Verifier
from tests.attestation.verifier.tokens import Issuer
from tests.sidecar.clock import Clock
from tests.sidecar.front import Front, Request, Spoilt, front, never
from tests.sidecar.pod import CANARY, HOME, Ended, Pod, clean, refused
from tests.sidecar.secrets import write_secret
from tests.support.certificates import make_pair
from tests.support.openbao import OpenBao, openbao
from tests.support.paths import ROOT
from tests.support.ports import free_port

DB = f"{HOME}/db"
FILE = (SecretFile("password", DB, "password", key="password"),)


@pytest.fixture
def clock(pod: Pod) -> Clock:
    """The pod's, which stands still but for its pauses."""
    return pod.move_clock(flows=False)


def through(pod: Pod, fronted: Front) -> None:
    """The pod's Vault is behind the front."""
    pod.change(vault=pod.plan.vault._replace(url=fronted.url, ca=fronted.ca))


def verifier_through(pod: Pod, fronted: Front) -> None:
    """The pod's verifier is behind the front."""
    pod.change(verifier=pod.plan.verifier._replace(url=fronted.url, ca=fronted.ca))


def real_verifier(pod: Pod, verifier_process: Verifier) -> tuple[int, str]:
    return verifier_process.port, pod.plan.verifier.ca


def nothing_published(pod: Pod) -> None:
    assert pod.published() == []


def revoked(ended: Ended) -> bool:
    return bool(ended.named("token_revoked"))


# --- configuration ------------------------------------------------------------------------------------------------


def test_a_plan_with_an_unknown_member_is_refused(pod: Pod) -> None:
    assert "holds 1 unknown" in refused(pod.run(_edited(pod, surprise=1)), Exit.CONFIGURATION, "plan")["detail"]


def test_a_plan_of_another_version_is_refused(pod: Pod) -> None:
    refused(pod.run(_edited(pod, version=2)), Exit.CONFIGURATION, "plan")


def test_a_plan_that_is_not_json_is_refused(pod: Pod) -> None:
    refused(pod.run(CANARY), Exit.CONFIGURATION, "plan")


def _edited(pod: Pod, **members: Any) -> str:
    document = json.loads(write_plan(pod.plan)) | members
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8200",
        "https://",
        "https://u:p@vault",
        "https://vault:x",
        "nonsense",
        "https://v/a b",
        "https://vä",
    ],
)
def test_a_url_that_is_not_https_is_refused(pod: Pod, url: str) -> None:
    pod.change(vault=pod.plan.vault._replace(url=url))
    refused(pod.run(), Exit.CONFIGURATION, "vault-url")


@pytest.mark.parametrize("namespace", ["team\nX-Other: 1", "tëam", "команда"], ids=["line", "Latin-1", "Cyrillic"])
def test_a_namespace_that_no_header_can_carry_is_refused(pod: Pod, namespace: str) -> None:
    pod.change(secrets=FILE, vault=pod.plan.vault._replace(namespace=namespace))
    ended = pod.run()
    refused(ended, Exit.CONFIGURATION, "vault-namespace")
    assert not ended.named("attested")


@pytest.mark.parametrize("container", ["../../outside", "a/b", "", "Web", "-web"])
def test_a_container_name_that_leaves_the_folder_is_refused(pod: Pod, container: str) -> None:
    """Its name becomes a file's, which shall be nowhere else."""
    pod.change(env=(EnvVariable(container, "A", value="plain"),))
    refused(pod.run(), Exit.CONFIGURATION, "plan")
    assert not [each for each in pod.root.rglob("*") if each.name == "outside"]
    nothing_published(pod)


def test_a_ca_that_is_not_pem_is_refused(pod: Pod) -> None:
    pod.change(verifier=pod.plan.verifier._replace(ca="not PEM"))
    refused(pod.run(), Exit.CONFIGURATION, "verifier-ca")


def test_an_image_without_the_exec_helper_is_refused(pod: Pod, tmp_path: Path) -> None:
    pod.helper = tmp_path / "nowhere"
    refused(pod.run(), Exit.CONFIGURATION, "helper")
    nothing_published(pod)


def test_an_empty_pod_token_is_refused(pod: Pod) -> None:
    pod.new_token = lambda: ""
    refused(pod.run(), Exit.CONFIGURATION, "pod-token")
    nothing_published(pod)


@pytest.mark.parametrize("path", ["elsewhere/a", "secret/../sys/x", "secret//x", "secret"])
def test_a_path_below_no_kv_mount_is_refused(pod: Pod, path: str) -> None:
    pod.change(secrets=(SecretFile("a", path, "a"),))
    refused(pod.run(), Exit.CONFIGURATION, "secret-path")


def test_a_version_of_a_mount_without_versions_is_refused(pod: Pod) -> None:
    pod.change(secrets=(SecretFile("a", "old/shop", "a", version=1),))
    refused(pod.run(), Exit.CONFIGURATION, "secret-path")


# --- evidence and verifier ----------------------------------------------------------------------------------------


def test_a_guest_without_an_evidence_source_is_refused(pod: Pod) -> None:
    pod.change(evidence=(EvidenceSource("simulated", f"http://127.0.0.1:{free_port()}"),))
    refused(pod.run(), Exit.EVIDENCE, "evidence-no-source")


def test_evidence_that_never_comes_ends_with_the_deadline(pod: Pod, clock: Clock) -> None:
    """However long the wait is in which the deadline passes: it sends a little, and nothing more."""
    with socket.create_server(("127.0.0.1", 0)) as source:
        pod.change(evidence=(EvidenceSource("simulated", f"http://127.0.0.1:{source.getsockname()[1]}"),))
        process = pod.start()
        source.settimeout(120)
        with source.accept()[0] as connection:
            connection.recv(1)
            clock.advance(pod.plan.deadline_seconds)
            connection.sendall(b"H")
            refused(pod.end(process), Exit.DEADLINE, "evidence-deadline")


def test_a_tampered_report_is_refused_by_the_verifier(
    pod: Pod, tampering_machine: str, verifier_process: Verifier
) -> None:
    pod.change(evidence=(EvidenceSource("simulated", tampering_machine),), secrets=FILE)
    event = refused(pod.run(), Exit.VERIFIER_REFUSED, "verifier-refused")
    verdict = verifier_process.events("attestation", event["correlation_id"])
    assert len(verdict) == 1, "both sides tell of one id"
    assert event["correlation_id"] in (pod.root / "last-words").read_text()
    nothing_published(pod)


def test_another_workloads_token_is_refused_by_the_verifier(pod: Pod, issuer: Issuer) -> None:
    token = issuer.token(account="neighbour")
    pod.new_token = lambda: token
    refused(pod.run(), Exit.VERIFIER_REFUSED, "verifier-refused", token)


def test_an_unreachable_verifier_is_retried_until_the_deadline(pod: Pod, clock: Clock) -> None:
    pod.change(verifier=pod.plan.verifier._replace(url=f"https://127.0.0.1:{free_port()}"))
    ended = pod.run()
    refused(ended, Exit.VERIFIER_UNREACHABLE, "verifier-unreachable")
    assert ended.named("retry"), "it was asked again"
    assert clock.moved() < pod.plan.deadline_seconds


@pytest.mark.parametrize("party", ["verifier", "vault"])
def test_a_certificate_of_another_ca_is_refused_at_once(pod: Pod, party: str) -> None:
    other = make_pair()[0].decode()
    pod.change(secrets=FILE)
    pod.change(**{party: getattr(pod.plan, party)._replace(ca=other)})
    ended = pod.run()
    code = Exit.VERIFIER_UNREACHABLE if party == "verifier" else Exit.VAULT_UNREACHABLE
    refused(ended, code, f"{party}-not-trusted")
    assert not ended.named("retry")
    nothing_published(pod)


def test_a_busy_verifier_is_asked_again_when_it_says(pod: Pod, verifier_process: Verifier, tmp_path: Path) -> None:
    def busy_once(_request: Request, seen: Sequence[Request]) -> Spoilt | None:
        return None if seen else Spoilt(503, (("Retry-After", "1"),))

    with front(tmp_path / "front", real_verifier(pod, verifier_process), busy_once) as fronted:
        verifier_through(pod, fronted)
        ended = pod.run()
    assert ended.code == 0, ended.stderr
    assert fronted.seen[1].at - fronted.seen[0].at >= 1


def test_a_retry_after_beyond_the_deadline_is_not_awaited(pod: Pod, verifier_process: Verifier, tmp_path: Path) -> None:
    def busy(_request: Request, _seen: Sequence[Request]) -> Spoilt:
        return Spoilt(503, (("Retry-After", "600"),))

    with front(tmp_path / "front", real_verifier(pod, verifier_process), busy) as fronted:
        verifier_through(pod, fronted)
        refused(pod.run(), Exit.VERIFIER_UNREACHABLE, "verifier-busy")
    assert len(fronted.seen) == 1


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        (ErrorType.VAULT_SEALED, "verifier-vault-sealed"),
        (ErrorType.VAULT, "verifier-vault-unavailable"),
        (ErrorType.CLUSTER, "verifier-cluster-unavailable"),
        (ErrorType.CERTIFICATES, "verifier-certificates-unavailable"),
        (ErrorType.SEALED, "verifier-sealed"),
        (ErrorType.CLOCK, "verifier-clock"),
        (ErrorType.UNAVAILABLE, "verifier-busy"),
    ],
)
def test_a_verifier_that_waits_for_another_party_names_it(
    pod: Pod, verifier_process: Verifier, tmp_path: Path, word: ErrorType, reason: str
) -> None:
    def waits(_request: Request, _seen: Sequence[Request]) -> Spoilt:
        return Spoilt(503, (("Retry-After", "600"),), write_error(word, "0123456789abcdef"))

    with front(tmp_path / "front", real_verifier(pod, verifier_process), waits) as fronted:
        verifier_through(pod, fronted)
        event = refused(pod.run(), Exit.VERIFIER_UNREACHABLE, reason)
    assert event["correlation_id"] == "0123456789abcdef"


def test_a_bearer_that_no_replica_knows_is_not_tried_for_ever(
    pod: Pod, verifier_process: Verifier, tmp_path: Path
) -> None:
    def unknown(request: Request, _seen: Sequence[Request]) -> Spoilt | None:
        if not request.path.startswith(TOKEN_PATH):
            return None
        return Spoilt(401, (), write_error(ErrorType.SESSION, "0123456789abcdef"))

    with front(tmp_path / "front", real_verifier(pod, verifier_process), unknown) as fronted:
        verifier_through(pod, fronted)
        refused(pod.run(), Exit.VERIFIER_UNREACHABLE, "verifier-session")
    assert fronted.paths().count(ATTEST_PATH) == 4
    assert pod.published() == []


def test_redirects_are_not_followed(pod: Pod, verifier_process: Verifier, tmp_path: Path) -> None:
    def elsewhere(_request: Request, _seen: Sequence[Request]) -> Spoilt:
        return Spoilt(307, (("Location", "/elsewhere"),))

    with front(tmp_path / "front", real_verifier(pod, verifier_process), elsewhere) as fronted:
        verifier_through(pod, fronted)
        refused(pod.run(), Exit.VERIFIER_UNREACHABLE, "verifier-redirects")
    assert len(fronted.seen) == 1


def test_a_trickle_does_not_extend_the_deadline(
    pod: Pod, verifier_process: Verifier, tmp_path: Path, clock: Clock
) -> None:
    def trickle(_request: Request, _seen: Sequence[Request]) -> Spoilt:
        return Spoilt(200, (), b" " * 10_000, trickle=True, each_byte=lambda: clock.advance(1.0))

    pod.change(deadline_seconds=15)
    with front(tmp_path / "front", real_verifier(pod, verifier_process), trickle) as fronted:
        verifier_through(pod, fronted)
        refused(pod.run(), Exit.VERIFIER_UNREACHABLE, "verifier-unreachable")
    assert clock.moved() < 9_000, "it did not wait for the end"


def test_a_clock_that_is_minutes_off_is_named(
    pod: Pod, verifier_process: Verifier, tampering_machine: str, tmp_path: Path
) -> None:
    pod.change(evidence=(EvidenceSource("simulated", tampering_machine),))
    date = formatdate(time.time() - 600, usegmt=True)
    with front(tmp_path / "front", real_verifier(pod, verifier_process), never, date=date) as fronted:
        verifier_through(pod, fronted)
        ended = pod.run()
    event = refused(ended, Exit.VERIFIER_REFUSED, "verifier-refused")
    assert "s ahead of the verifier's" in event["detail"]
    assert ended.named("clock_skew")


def test_names_resolve_and_proxies_are_ignored(pod: Pod, verifier_process: Verifier, tmp_path: Path) -> None:
    pod.environment = {name: f"http://127.0.0.1:{free_port()}" for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY")}
    with front(tmp_path / "front", real_verifier(pod, verifier_process), never, host="localhost") as fronted:
        verifier_through(pod, fronted)
        assert pod.run().code == 0


# --- Vault --------------------------------------------------------------------------------------------------------


def test_a_sealed_vault_is_unreachable_at_the_deadline(pod: Pod, tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "sealed").mkdir()
    pod.change(secrets=FILE)
    with openbao(tmp_path / "sealed") as sealed:
        sealed.done("PUT", "sys/seal")
        pod.change(vault=pod.plan.vault._replace(url=f"https://127.0.0.1:{sealed.tls_port}", ca=sealed.ca))
        ended = pod.run()
    refused(ended, Exit.VAULT_UNREACHABLE, "vault-busy")
    assert ended.named("retry")
    assert ended.named("token_not_revoked")
    assert clock.moved() > pod.plan.deadline_seconds / 2, "it was asked until the deadline"
    nothing_published(pod)


def test_a_vault_that_recovers_before_the_deadline_is_used(pod: Pod, bao: OpenBao, tmp_path: Path) -> None:
    def busy_twice(_request: Request, seen: Sequence[Request]) -> Spoilt | None:
        return Spoilt(503) if len(seen) < 2 else None

    pod.change(secrets=FILE)
    with front(tmp_path / "front", (bao.tls_port, bao.ca), busy_twice) as fronted:
        through(pod, fronted)
        ended = pod.run()
    assert ended.code == 0, ended.stderr
    assert len(ended.named("retry")) == 2


@pytest.mark.parametrize("status", [307, 412], ids=["cannot forward", "has not caught up"])
def test_a_standby_node_is_retried(pod: Pod, bao: OpenBao, tmp_path: Path, status: int) -> None:
    """Behind a load balancer the next connection may find the active one; where this one points to is not followed."""

    def standby_first(_request: Request, seen: Sequence[Request]) -> Spoilt | None:
        return None if seen else Spoilt(status, (("Location", "https://127.0.0.1:1/v1/elsewhere"),))

    pod.change(secrets=FILE)
    with front(tmp_path / "front", (bao.tls_port, bao.ca), standby_first) as fronted:
        through(pod, fronted)
        ended = pod.run()
    assert ended.code == 0, ended.stderr
    assert [each["reason"] for each in ended.named("retry")] == ["vault-busy"]


@pytest.mark.parametrize("status", [301, 302, 308])
def test_a_redirect_by_vault_is_not_followed(pod: Pod, bao: OpenBao, tmp_path: Path, status: int) -> None:
    def elsewhere(_request: Request, _seen: Sequence[Request]) -> Spoilt:
        return Spoilt(status, (("Location", "/elsewhere"),))

    pod.change(secrets=FILE)
    with front(tmp_path / "front", (bao.tls_port, bao.ca), elsewhere) as fronted:
        through(pod, fronted)
        refused(pod.run(), Exit.VAULT_UNREACHABLE, "vault-redirects")
    assert "/elsewhere" not in fronted.paths()


def test_an_answer_beyond_the_limit_is_refused(pod: Pod, bao: OpenBao, tmp_path: Path) -> None:
    def huge(request: Request, _seen: Sequence[Request]) -> Spoilt | None:
        return Spoilt(200, (), CANARY.encode() * 500_000) if "/data/" in request.path else None

    pod.change(secrets=FILE)
    with front(tmp_path / "front", (bao.tls_port, bao.ca), huge) as fronted:
        through(pod, fronted)
        ended = pod.run()
    refused(ended, Exit.VAULT_UNREACHABLE, "vault-answer-too-large")
    assert revoked(ended)


def test_an_answer_that_is_not_a_secret_is_refused(pod: Pod, bao: OpenBao, tmp_path: Path) -> None:
    def wrong(request: Request, _seen: Sequence[Request]) -> Spoilt | None:
        return Spoilt(200, (), f'"{CANARY}'.encode()) if "/data/" in request.path else None

    pod.change(secrets=FILE)
    with front(tmp_path / "front", (bao.tls_port, bao.ca), wrong) as fronted:
        through(pod, fronted)
        refused(pod.run(), Exit.VAULT_UNREACHABLE, "vault-answer")


def test_a_path_outside_the_policy_is_refused_by_vault(pod: Pod) -> None:
    pod.change(secrets=(SecretFile("a", "secret/knative/prod/shop/neighbour/db", "a"),))
    ended = pod.run()
    assert "neighbour" in refused(ended, Exit.VAULT_REFUSED, "vault-refused")["detail"]
    assert revoked(ended)


def test_each_distinct_secret_is_read_once(pod: Pod, bao: OpenBao, tmp_path: Path) -> None:
    pod.change(
        secrets=(*FILE, SecretFile("all", DB, "all"), SecretFile("first", DB, "first", version=1)),
        env=(EnvVariable("web", "A", path=DB, key="user"), EnvVariable("web", "B", value=f"${{vault:{DB}#user}}")),
        env_from=(EnvFrom("web", DB),),
    )
    with front(tmp_path / "front", (bao.tls_port, bao.ca), never) as fronted:
        through(pod, fronted)
        assert pod.run().code == 0
    target = f"/v1/{DB.replace('secret/', 'secret/data/')}"
    assert fronted.paths() == [target, f"{target}?version=1", "/v1/auth/token/revoke-self"]


# --- secrets ------------------------------------------------------------------------------------------------------


def test_a_secret_does_not_choose_the_code_that_runs_in_the_container(pod: Pod, bao: OpenBao) -> None:
    write_secret(bao, "poisoned", {"USER": "a", "LD_PRELOAD": f"/opt/{CANARY}.so"})
    pod.change(env_from=(EnvFrom("web", f"{HOME}/poisoned"),))
    ended = pod.run()
    assert "has a key LD_PRELOAD" in refused(ended, Exit.SECRET_MISSING, "secret-unusable")["detail"]
    assert revoked(ended)
    assert not (pod.run_folder / "env" / "web").exists()


def test_a_missing_secret_version_or_key_is_named(pod: Pod, bao: OpenBao) -> None:
    for data in ({"a": "1"}, {"a": "2"}, {"a": "3"}):
        write_secret(bao, "gone", data)
    gone = f"{HOME}/gone"
    rest = gone.removeprefix("secret/")
    bao.done("PUT", f"secret/destroy/{rest}", {"versions": [1]})
    bao.done("POST", f"secret/delete/{rest}", {"versions": [2]})
    for secret in (
        SecretFile("a", f"{HOME}/never-there", "a"),
        SecretFile("a", gone, "a", version=1),
        SecretFile("a", gone, "a", version=2),
        SecretFile("a", gone, "a", version=9),
    ):
        pod.change(secrets=(*FILE, secret))
        ended = pod.run()
        assert secret.path in refused(ended, Exit.SECRET_MISSING, "secret-missing")["detail"]
        assert revoked(ended)
    pod.change(secrets=(*FILE, SecretFile("a", gone, "a", key="b")))
    assert "has no key b" in refused(pod.run(), Exit.SECRET_MISSING, "key-missing")["detail"]
    nothing_published(pod)


def test_more_than_the_volumes_limit_is_refused(pod: Pod, bao: OpenBao) -> None:
    write_secret(bao, "large", {"text": CANARY * 80_000})
    large = f"{HOME}/large"
    pod.change(secrets=tuple(SecretFile(f"s{n}", large, f"s{n}", key="text") for n in range(22)))
    ended = pod.run()
    refused(ended, Exit.NO_SPACE, "too-large")
    assert revoked(ended)
    pod.change(secrets=(), env=(EnvVariable("web", "LARGE", path=large, key="text"),))
    refused(pod.run(), Exit.NO_SPACE, "too-large")
    nothing_published(pod)


def test_a_full_volume_shows_nothing(pod: Pod, bao: OpenBao) -> None:
    if os.geteuid() != 0:
        pytest.skip("a small tmpfs needs root")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", pod.secrets], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip(f"this machine mounts no tmpfs: {mounted.stderr.decode().strip()}")
    try:
        write_secret(bao, "medium", {"text": CANARY * 20_000})
        pod.change(secrets=(*FILE, SecretFile("medium", f"{HOME}/medium", "medium", key="text")))
        ended = pod.run()
        refused(ended, Exit.NO_SPACE, "disk-full")
        assert revoked(ended)
        assert list(pod.secrets.iterdir()) == [], "what was written aside is gone again"
    finally:
        subprocess.run(["umount", pod.secrets], check=True)


def test_a_foreign_file_in_the_way_is_not_passed_over(pod: Pod) -> None:
    pod.change(secrets=FILE)
    (pod.secrets / "password").write_text("somebody's")
    ended = pod.run()
    refused(ended, Exit.CONFIGURATION, "volume")
    assert revoked(ended)
    assert not (pod.run_folder / "ready").exists()


def test_a_failed_revocation_is_retried(pod: Pod, bao: OpenBao, tmp_path: Path) -> None:
    def busy_once(request: Request, seen: Sequence[Request]) -> Spoilt | None:
        first = request.path.endswith("revoke-self") and not any(each.path == request.path for each in seen)
        return Spoilt(503) if first else None

    with front(tmp_path / "front", (bao.tls_port, bao.ca), busy_once) as fronted:
        through(pod, fronted)
        ended = pod.run()
    assert ended.code == 0, ended.stderr
    assert revoked(ended)


def test_a_missing_volume_is_refused(pod: Pod) -> None:
    pod.run_folder.rmdir()
    refused(pod.run(), Exit.CONFIGURATION, "volume")


def test_help_lists_the_exit_codes() -> None:
    done = subprocess.run([sys.executable, "-m", "sidecar.main", "--help"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0
    for code in Exit:
        assert f"{code.value:>3}  " in done.stdout
    clean(Ended(0, done.stdout, ""))
