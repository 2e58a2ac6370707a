"""A sidecar that stays for months: its memory, what it shows of its secrets, and volumes that are full."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from plan.document import SecretFile
from sidecar.reasons import Exit
from sidecar.vault.session import RENEW_AT
from tests.sidecar.clock import Clock
from tests.sidecar.pod import CANARY, HOME, Pod, clean, refused
from tests.sidecar.resident import Resident, resident
from tests.sidecar.secrets import write_secret
from tests.sidecar.test_shutdown import alive
from tests.sidecar.test_shutdown_while_renewing import changing, hurried
from tests.support.openbao import OpenBao
from tests.support.until import until
from webhook.configuration.sections import Sidecar

__all__ = ["changing", "hurried"]  # fixtures

MEGABYTE = 1_000_000
BUDGET = 45 * MEGABYTE


def _descriptors(sidecar: Resident) -> int:
    return len(os.listdir(f"/proc/{sidecar.process.pid}/fd"))


@pytest.mark.slow
def test_its_memory_does_not_grow(changing: Pod, hurried: None) -> None:
    with resident(changing, reread=0.02) as sidecar:
        sidecar.wait("published", 60)
        sidecar.wait("attested", 3)
        early = [sidecar.wait("published", count) and sidecar.resident_bytes() for count in range(60, 121, 10)]
        descriptors = min(_descriptors(sidecar) for _ in range(20))
        sidecar.wait("published", 300)
        sidecar.wait("attested", 8)
        late = [sidecar.wait("published", count) and sidecar.resident_bytes() for count in range(300, 361, 10)]
        # One moment's size depends on what the allocator keeps; what leaks stays in each of them.
        assert min(late) < BUDGET
        assert min(late) - max(early) < 2 * MEGABYTE
        until(lambda: _descriptors(sidecar) <= descriptors)
        assert sidecar.stop().code == 0


def test_no_token_and_no_secret_is_anywhere_but_on_the_volumes(pod: Pod, bao: OpenBao) -> None:
    write_secret(bao, "shown", {"key": f"{CANARY}-1"})
    pod.change(secrets=(SecretFile("key", f"{HOME}/shown", "key", key="key"),))
    with resident(pod, reread=0.3) as sidecar:
        sidecar.wait("published")
        folder = Path(f"/proc/{sidecar.process.pid}")
        for value in ("1", "2"):
            write_secret(bao, "shown", {"key": f"{CANARY}-{value}"})
            sidecar.wait("published", int(value))
            shown = b"".join((folder / name).read_bytes() for name in ("environ", "cmdline", "comm", "status"))
            for secret in (CANARY, "hvs.", "s.", "eyJ"):
                assert f"={secret}".encode() not in shown
            assert CANARY.encode() not in shown
            assert CANARY not in str(sidecar.probe("/livez"))
        assert "Max core file size        0                    0" in (folder / "limits").read_text()
        held = {path for path in pod.root.rglob("*") if path.is_file() and CANARY.encode() in path.read_bytes()}
        assert {path.relative_to(pod.root).parts[0] for path in held} == {"secrets"}
        assert len({path.stat().st_ino for path in held}) == 1, "the old one is gone"
        ended = sidecar.stop()
    clean(ended)


def test_a_volume_that_is_full_keeps_what_it_shows(pod: Pod, bao: OpenBao) -> None:
    if os.getuid() != 0:
        pytest.skip("a small tmpfs needs root")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", pod.secrets], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip(f"this machine mounts no tmpfs: {mounted.stderr.decode().strip()}")
    try:
        pod.secrets.chmod(0o2777)
        write_secret(bao, "grown", {"key": f"{CANARY}-1"})
        pod.change(secrets=(SecretFile("key", f"{HOME}/grown", "key", key="key"),))
        before = alive(bao)
        with resident(pod, reread=0.3) as sidecar:
            sidecar.wait("published")
            write_secret(bao, "grown", {"key": "x" * 100_000})
            assert sidecar.wait("trouble")[0]["reason"] == "disk-full"
            assert (pod.secrets / "key").read_text() == f"{CANARY}-1"
            assert "ready" in pod.published()
            # What was written in vain is gone again each time: it is tried again and again.
            until(lambda: [each.name for each in pod.secrets.iterdir() if each.name.startswith("..")] == ["..data"])
            write_secret(bao, "grown", {"key": f"{CANARY}-2"})
            sidecar.wait("recovered")
            assert (pod.secrets / "key").read_text() == f"{CANARY}-2"
            assert sidecar.stop().code == 0
        assert alive(bao) - before == set()
    finally:
        subprocess.run(["umount", pod.secrets], check=True)


def test_what_can_be_published_can_be_replaced(pod: Pod, bao: OpenBao) -> None:
    """On a volume as the webhook asks for by default, both versions have room beside each other."""
    if os.getuid() != 0:
        pytest.skip("a small tmpfs needs root")
    size = Sidecar().secretsSizeLimit.removesuffix("i").lower()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", pod.secrets], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip(f"this machine mounts no tmpfs: {mounted.stderr.decode().strip()}")
    try:
        pod.secrets.chmod(0o2777)
        write_secret(bao, "big", {"key": "1" * 900_000})
        pod.change(secrets=tuple(SecretFile(f"f{n}", f"{HOME}/big", f"f{n}", key="key") for n in range(9)))
        with resident(pod, reread=0.3) as sidecar:
            sidecar.wait("published")
            write_secret(bao, "big", {"key": "2" * 900_000})
            sidecar.wait("published", 2)
            assert not sidecar.named("trouble")
            assert sidecar.stop().code == 0
        pod.change(secrets=tuple(SecretFile(f"f{n}", f"{HOME}/big", f"f{n}", key="key") for n in range(10)))
        with resident(pod) as sidecar:
            refused(sidecar.end(), Exit.NO_SPACE, "too-large")
    finally:
        subprocess.run(["umount", pod.secrets], check=True)


def test_a_role_without_the_default_policy_is_served_all_the_same(pod: Pod, bao: OpenBao, clock: Clock) -> None:
    """Such a token may neither look at itself nor renew nor end itself: it is replaced in time, and that is said."""
    write_secret(bao, "shown", {"key": f"{CANARY}-1"})
    pod.change(secrets=(SecretFile("key", f"{HOME}/shown", "key", key="key"),))
    bao.write_role(token_policies=["knative"], token_no_default_policy=True)
    try:
        with resident(pod) as sidecar:
            sidecar.wait("published")
            for count in (2, 3):
                clock.advance(600 * RENEW_AT)
                sidecar.wait("attested", count)
            assert not sidecar.named("trouble")
            assert "HTTP 403" in sidecar.wait("token_not_revoked")[0]["detail"]
            assert sidecar.stop().code == 0
    finally:
        bao.write_role(token_policies=["knative", "tests"], token_no_default_policy=False)


def test_a_process_that_was_stopped_for_longer_than_its_token_lived(pod: Pod, bao: OpenBao, clock: Clock) -> None:
    """A paused VM looks like this: everything is overdue at once, and the token is dead."""
    write_secret(bao, "shown", {"key": f"{CANARY}-1"})
    pod.change(secrets=(SecretFile("key", f"{HOME}/shown", "key", key="key"),))
    before = alive(bao)
    with resident(pod) as sidecar:
        sidecar.wait("published")
        sidecar.process.send_signal(signal.SIGSTOP)
        (accessor,) = alive(bao) - before
        bao.done("POST", "auth/token/revoke-accessor", {"accessor": accessor})
        write_secret(bao, "shown", {"key": f"{CANARY}-2"})
        clock.advance(3600)
        sidecar.process.send_signal(signal.SIGCONT)
        sidecar.wait("published", 2)
        assert (pod.secrets / "key").read_text() == f"{CANARY}-2"
        assert sidecar.stop().code == 0
