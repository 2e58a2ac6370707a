"""Clocks that are off, truly: a process under Debian's libfaketime, everything else on the machine's own time."""

from __future__ import annotations

from pathlib import Path

import pytest

from attestation.simulator.hierarchy import Hierarchy
from sidecar.reasons import Exit
from tests.attestation.verifier.process import Site, Verifier, verifier
from tests.attestation.verifier.tokens import Issuer
from tests.e2e.site import replica, write_password
from tests.sidecar.clock import Clock
from tests.sidecar.pod import CANARY, Pod, refused
from tests.sidecar.resident import resident
from tests.support import packages
from tests.support.raft import RaftOpenBao
from tests.support.until import until

_PLACES = ("/usr/lib/*/faketime/libfaketime.so.1", "/usr/lib64/faketime/libfaketime.so.1")


@pytest.fixture(scope="session")
def faketime() -> dict[str, str]:
    """The environment in which a process has another time; `FAKETIME` is still to be set."""
    found = [path for pattern in _PLACES for path in Path("/").glob(pattern.removeprefix("/"))]
    if not found:
        pytest.skip(packages.without("libfaketime"))
    return {"LD_PRELOAD": str(found[0])}


@pytest.mark.parametrize("offset", ["+600", "-600"])
def test_a_guest_whose_clock_is_minutes_off_gets_its_secrets(pod: Pod, faketime: dict[str, str], offset: str) -> None:
    """Nonce, pod token and JWT are judged by other clocks than the guest's; it is told all the same."""
    pod.environment = faketime | {"FAKETIME": offset}
    ended = pod.run()
    assert ended.code == 0, ended.stderr
    (warning,) = ended.named("clock_skew")
    seconds, _, direction = warning["detail"].removeprefix("this guest's clock is ").partition(" s ")
    assert 540 <= int(seconds) <= 660, "ten minutes, and what a busy machine adds"
    assert direction == ("ahead of the verifier's" if offset[0] == "+" else "behind the verifier's")
    assert (pod.secrets / "password").read_text().startswith(CANARY)


def test_a_guest_whose_clock_is_days_off_is_told_so(pod: Pod, faketime: dict[str, str]) -> None:
    """No certificate is valid there, and no answer comes that could say what time it is."""
    pod.environment = faketime | {"FAKETIME": "-10d"}
    event = refused(pod.run(), Exit.VERIFIER_UNREACHABLE, "verifier-not-trusted")
    assert "this guest's clock says" in event["detail"]
    assert pod.published() == []


@pytest.mark.parametrize("offset", ["-300", "+1200", "+120"])
def test_a_verifier_whose_clock_is_off_serves_no_guest(
    pod: Pod,
    tmp_path: Path,
    site: Site,
    hierarchy: Hierarchy,
    issuer: Issuer,
    faketime: dict[str, str],
    offset: str,
    hurry: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It asks Vault what time it is, and decides nothing by a clock that differs."""
    for name, value in (faketime | {"FAKETIME": offset}).items():
        monkeypatch.setenv(name, value)
    with verifier(replica(site, tmp_path / "off", hierarchy, issuer)) as running:
        for name in ("LD_PRELOAD", "FAKETIME"):
            monkeypatch.delenv(name)
        client = running.client()
        until(lambda: client.call("GET", "/readyz").status == 503)
        pod.change(verifier=pod.plan.verifier._replace(url=f"https://127.0.0.1:{running.port}"), deadline_seconds=20)
        event = refused(pod.run(), Exit.VERIFIER_UNREACHABLE, "verifier-clock")
        assert running.events("clock")[0]["detail"].startswith(f"the clock is {offset[0]}")
        client.close()
    assert "this guest's clock is" in event["detail"], "nobody sees from inside who is wrong, only that they differ"
    assert pod.published() == []


def test_a_verifier_whose_clock_agrees_stays_ready(verifier_process: Verifier) -> None:
    client = verifier_process.client()
    until(lambda: client.call("GET", "/readyz").status == 200)
    client.close()
    assert not verifier_process.events("clock")


# Python sleeps until a point of the monotonic clock, which libfaketime takes for one of the clock that it moves.
_OTHER_SLEEP = "import select, time\ntime.sleep = lambda seconds: select.select([], [], [], seconds)\n"


@pytest.mark.slow
def test_a_guest_that_was_paused_reads_its_secrets_at_once(
    pod: Pod, bao: RaftOpenBao, faketime: dict[str, str]
) -> None:
    """To a paused VM no time has passed until its clock is put right, and the monotonic one never is."""
    write_password(bao, "first")
    clock = pod.root / "clock"
    clock.write_text("+0")
    (pod.root / "sitecustomize.py").write_text(_OTHER_SLEEP)
    pod.environment = faketime | {
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "PYTHONPATH": str(pod.root),
    }
    with resident(pod) as sidecar:
        sidecar.wait("published")
        write_password(bao, "second")
        clock.write_text("+600")
        assert 590 <= sidecar.wait("paused")[0]["seconds"] <= 660, "ten minutes, and what a busy machine adds"
        sidecar.wait("published", 2)
        assert (pod.secrets / "password").read_text() == f"{CANARY}-second"
        assert not sidecar.named("trouble")
        assert sidecar.stop().code == 0
