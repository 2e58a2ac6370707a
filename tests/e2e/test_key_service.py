"""AMD's key service limits, and pods start all the same: a cold cache, a host that hands out no certificates.

The maker is the tests' own, see `tests.attestation.verifier.key_service`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from attestation.report.products import MILAN
from attestation.simulator.hierarchy import Hierarchy
from plan.document import EvidenceSource
from sidecar.reasons import Exit
from tests.attestation.conftest import Platform
from tests.attestation.verifier.key_service import HOST_DATA, Maker, milan_verifier, serving
from tests.attestation.verifier.process import Site, Verifier, policy
from tests.attestation.verifier.tokens import Issuer
from tests.e2e.site import NewPod, replica
from tests.sidecar.clock import Clock
from tests.sidecar.pod import CANARY, Pod, refused
from tests.support.raft import RaftOpenBao
from tests.support.until import until


@pytest.fixture(scope="module")
def platform() -> Platform:
    return Platform(MILAN, datetime.now(UTC))


StartVerifier = Callable[[Maker], contextlib.AbstractContextManager[tuple[Verifier, str]]]


@pytest.fixture
def start_verifier(tmp_path: Path, site: Site, hierarchy: Hierarchy, issuer: Issuer) -> StartVerifier:
    """Starts a verifier with a cold cache that asks this maker's key service; with the machine's address."""

    @contextlib.contextmanager
    def start(maker: Maker) -> Iterator[tuple[Verifier, str]]:
        milan = replica(site, tmp_path / "milan", hierarchy, issuer)
        milan.write_guests({"milan": maker.guest})
        milan.write_policy("payments", policy(guests=["milan"], hostData=[HOST_DATA.hex()]))
        with serving(maker.machine) as machine, milan_verifier(milan, maker) as running:
            yield running, machine

    return start


def on(pod: Pod, running: Verifier, machine: str) -> Pod:
    """The pod, on this machine and with this verifier."""
    url = f"https://127.0.0.1:{running.port}"
    pod.change(verifier=pod.plan.verifier._replace(url=url), evidence=(EvidenceSource("simulated", machine),))
    return pod


@pytest.mark.slow
def test_pods_wait_out_a_key_service_that_limits(
    new_pod: NewPod, platform: Platform, start_verifier: StartVerifier, bao: RaftOpenBao
) -> None:
    before = bao.accessors()
    maker = Maker(platform, "1", refusals=1)
    with start_verifier(maker) as (running, machine):
        pods = [on(new_pod(), running, machine) for _ in range(3)]
        processes = [each.start() for each in pods]
        waited = set()
        for each, process in zip(pods, processes, strict=True):
            ended = each.end(process)
            assert ended.code == 0, ended.stderr
            waited |= {retry["reason"] for retry in ended.named("retry")}
            assert (each.secrets / "password").read_text().startswith(CANARY)
        # The first to ask has to wait; one that starts late on a busy machine may not.
        assert waited == {"verifier-certificates-unavailable"}
        assert len(maker.asked) == 2, "all pods of a chip are one question, asked again once"
        assert on(new_pod(), running, machine).run().code == 0
        assert len(maker.asked) == 2, "and the answer is kept"
        reasons = [each["reason"] for each in running.events("attestation")]
    assert set(reasons) == {"certificates-unavailable", "believed"}
    until(lambda: bao.accessors() <= before)


def test_a_key_service_that_keeps_refusing_fails_the_pod(
    pod: Pod, platform: Platform, start_verifier: StartVerifier, hurry: Clock
) -> None:
    maker = Maker(platform, "600", refusals=1_000)
    pod.change(deadline_seconds=20)
    with start_verifier(maker) as (running, machine):
        event = refused(on(pod, running, machine).run(), Exit.VERIFIER_UNREACHABLE, "verifier-certificates-unavailable")
        reasons = [each["reason"] for each in running.events("attestation")]
    assert "503" in event["detail"]
    assert len(reasons) > 1, "the pod asked again"
    assert set(reasons) == {"certificates-unavailable"}
    assert len(maker.asked) == 1, "and the key service was left in peace"
    assert pod.published() == []
