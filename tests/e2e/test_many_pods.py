"""Many pods at once: one verifier, one OpenBao, all served.

They all have one address here, as the pods of a cluster have behind a proxy. The verifier takes 1,000 attestations at
once from an address and then 200 a second (`perSource`), so 75 are far below; what happens beyond is the second test's.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import pytest

from attestation.simulator.hierarchy import Hierarchy
from tests.attestation.verifier.process import Site, Verifier, verifier
from tests.attestation.verifier.tokens import Issuer
from tests.e2e.forwarder import forwarder
from tests.e2e.site import NewPod, replica
from tests.sidecar.pod import CANARY, Ended, Pod, clean
from tests.support.raft import RaftOpenBao
from tests.support.until import until

_MANY = 75  # the highest concurrency of the paper this implements


def start_all(pods: list[Pod]) -> list[Ended]:
    processes = [each.start() for each in pods]
    return [each.end(process) for each, process in zip(pods, processes, strict=True)]


def served(pods: list[Pod], ends: list[Ended]) -> None:
    for each, ended in zip(pods, ends, strict=True):
        assert ended.code == 0, ended.stderr
        assert (each.secrets / "password").read_text().startswith(CANARY)
        clean(ended)


@pytest.mark.slow
def test_75_pods_at_once_are_all_served(new_pod: NewPod, verifier_process: Verifier, bao: RaftOpenBao) -> None:
    before = bao.accessors()
    pods = [new_pod() for _ in range(_MANY)]
    for each in pods:
        each.change(deadline_seconds=600)  # 75 interpreters start on whatever processors there are
    started = time.monotonic()
    ends = start_all(pods)
    print(f"{_MANY} at once: all served within {time.monotonic() - started:.1f} s")
    served(pods, ends)
    until(lambda: bao.accessors() <= before)
    believed = [
        each["correlation_id"] for each in verifier_process.events("attestation") if each["reason"] == "believed"
    ]
    ours = [ended.named("attested")[0]["correlation_id"] for ended in ends]
    assert len(set(ours)) == _MANY
    assert set(ours) <= set(believed)


@pytest.mark.slow
def test_more_than_the_verifier_takes_from_one_address_come_in_by_turns(
    new_pod: NewPod, tmp_path: Path, site: Site, hierarchy: Hierarchy, issuer: Issuer, bao: RaftOpenBao
) -> None:
    before = bao.accessors()
    strict = replica(site, tmp_path / "strict", hierarchy, issuer)
    strict.settings["perSource"] = {"burst": 4, "perSecond": 2}
    with verifier(strict) as running, forwarder(running.port) as way:
        pods = [new_pod() for _ in range(16)]
        for each in pods:
            each.change(verifier=each.plan.verifier._replace(url=f"https://127.0.0.1:{way.port}"))
        # They come together, however long each took to start.
        way.hold()
        processes = [each.start() for each in pods]
        until(lambda: way.came == len(pods))
        way.release()
        ends = [each.end(process) for each, process in zip(pods, processes, strict=True)]
    served(pods, ends)
    waited = [len(ended.named("retry")) for ended in ends]
    print(f"16 pods, four at once: tries beyond the first {sorted(waited)}, mean {statistics.mean(waited):.1f}")
    assert max(waited) > 0, "the limit was met"
    assert {each["reason"] for ended in ends for each in ended.named("retry")} == {"verifier-busy"}
    until(lambda: bao.accessors() <= before)
