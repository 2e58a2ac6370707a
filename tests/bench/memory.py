"""What webhook, verifier and a resident sidecar hold while they work: `python -m tests.bench.memory --minutes 60`.

The load is bounded, so that an hour of it is the work of a busy hour and leaves the machine to others: reviews of a
recorded pod at `--reviews` a second on 16 connections, with 5,000 nodes; attestations
at `--attestations` a second, each by a nonce of its own; and a sidecar that reads its secret again each second, which
changes every five. One line a minute, then the slope over what follows the first fifth of the time, in which caches
fill.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from attestation.simulator.device import Device
from attestation.simulator.hierarchy import open_hierarchy
from kbs.ephemeral_key import EphemeralKey
from kbs.guest import write_additional_evidence, write_attest
from kbs.messages import binding
from tests.attestation.verifier.guest import Client, document
from tests.attestation.verifier.process import HOST_DATA, Verifier, make_site, policy, verifier
from tests.attestation.verifier.tokens import Issuer
from tests.bench.served import REVIEW, load, objects, resident_mb, webhook
from tests.bench.sidecar import SECRET, plan_of_a_pod
from tests.sidecar.pod import Pod
from tests.sidecar.resident import Resident, resident
from tests.support.certificates import write_pair
from tests.support.exec_helper import build_helper
from tests.support.raft import RaftOpenBao, raft_openbao
from tests.support.simulated_machine import simulated_machine
from tests.webhook.server.control_plane import pods_control_plane

_NODES = 5_000
_BUDGET_MB = {"webhook": 80.0}
# Of each second the load takes so much: what it lacks to its rate on a slow machine is not made up.
_STEP_SECONDS = 5.0


class Rounds:
    """Memory by process, one sample a minute."""

    def __init__(self, pids: dict[str, int]) -> None:
        self.pids = pids
        self.minutes: list[float] = []
        self.samples: dict[str, list[float]] = {name: [] for name in pids}

    def sample(self, minutes: float) -> None:
        self.minutes.append(minutes)
        for name, pid in self.pids.items():
            self.samples[name].append(resident_mb(pid))
        held = ", ".join(f"{name} {values[-1]:.1f} MB" for name, values in self.samples.items())
        print(f"  {minutes:5.1f} min: {held}", flush=True)

    def slope(self, name: str) -> float:
        """MB an hour, by least squares over what follows the first fifth of the time."""
        first = len(self.minutes) // 5
        times, values = self.minutes[first:], self.samples[name][first:]
        return 60 * statistics.linear_regression(times, values).slope if len(times) > 1 else 0.0


def main(arguments: Sequence[str] = ()) -> None:
    """All three under load; the budget is the webhook's, the others' growth is what counts."""
    parser = argparse.ArgumentParser(prog="tests.bench.memory", description=main.__doc__)
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--reviews", type=int, default=30, help="a second; 28 make 100,000 in an hour")
    parser.add_argument("--attestations", type=int, default=4, help="a second")
    options = parser.parse_args(arguments)
    with _setting() as (folder, port, attesting, sidecar, pids):
        rounds = Rounds(pids)
        counts = {"reviews": 0, "attestations": 0}
        began = time.monotonic()
        next_sample = 0.0
        with ThreadPoolExecutor(1) as other:
            while (passed := time.monotonic() - began) < options.minutes * 60:
                if passed >= next_sample:
                    rounds.sample(passed / 60)
                    next_sample += 60.0 if options.minutes > 5 else 15.0
                step = time.monotonic()
                attested = other.submit(attesting, round(options.attestations * _STEP_SECONDS))
                done = load(folder, port, _STEP_SECONDS, most=round(options.reviews * _STEP_SECONDS))
                if done["failed"]:
                    raise RuntimeError(f"{done['failed']} reviews failed")
                counts["reviews"] += done["requests"]
                counts["attestations"] += attested.result()
                time.sleep(max(0.0, _STEP_SECONDS - (time.monotonic() - step)))
        rounds.sample((time.monotonic() - began) / 60)
        read = len(sidecar.named("published"))
    print(
        f"{counts['reviews']:,} reviews, {counts['attestations']:,} attestations, {read:,} publications of the sidecar"
    )
    for name, values in rounds.samples.items():
        budget = f"; budget {_BUDGET_MB[name]:.0f} MB" if name in _BUDGET_MB else ""
        print(
            f"{name}: {values[0]:.1f} MB at first, {values[-1]:.1f} MB at the end, most {max(values):.1f} MB,"
            f" slope {rounds.slope(name):+.1f} MB an hour{budget}"
        )


@contextlib.contextmanager
def _setting() -> Iterator[tuple[Path, int, Attesting, Resident, dict[str, int]]]:
    body = json.dumps(json.loads(REVIEW.read_text()), separators=(",", ":")).encode()
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        for each in ("webhook", "site", "helper", "pod", "openbao"):
            (folder / each).mkdir()
        write_pair(folder / "webhook")
        (folder / "webhook" / "body.json").write_bytes(body)
        url = stack.enter_context(pods_control_plane(folder / "webhook" / "account", objects(_NODES)))
        served = stack.enter_context(webhook(folder / "webhook", url))
        hierarchy, issuer = open_hierarchy(folder / "simulated"), Issuer()
        bao = stack.enter_context(raft_openbao(folder / "openbao"))
        bao.done("POST", SECRET.replace("secret/", "secret/data/", 1), {"data": {"password": "of a bench"}})
        site = make_site(folder / "site", hierarchy, issuer, bao.url)
        site.settings["vault"]["ca"] = str(bao.ca_path)
        site.settings["perSource"] = {"burst": 100_000, "perSecond": 10_000}
        site.write_policy("payments", policy())
        bao.trust(site.public_keys)
        running = stack.enter_context(verifier(site))
        machine = stack.enter_context(simulated_machine(hierarchy, HOST_DATA))
        plan = plan_of_a_pod(machine, running, bao)._replace(agent="sidecar")
        pod = Pod(folder / "pod", build_helper(folder / "helper"), plan, lambda: issuer.token(uid="of-a-bench"))
        sidecar = stack.enter_context(resident(pod, reread=1.0))
        sidecar.wait("published")
        attesting = Attesting(running, Device(hierarchy, host_data=HOST_DATA), issuer, bao)
        pids = {"webhook": served.pid, "verifier": running.process.pid, "sidecar": sidecar.process.pid}
        yield folder / "webhook", served.port, attesting, sidecar, pids


class Attesting:
    """Guests one after another: a nonce, evidence, a bearer. Each call also gives the sidecar a new secret."""

    def __init__(self, running: Verifier, device: Device, issuer: Issuer, bao: RaftOpenBao) -> None:
        self._running = running
        self._device = device
        self._issuer = issuer
        self._bao = bao
        self._count = 0

    def __call__(self, count: int) -> int:
        """So many attestations; how many were made."""
        secret = {"data": {"password": f"of a bench, {self._count}"}}
        self._bao.done("POST", SECRET.replace("secret/", "secret/data/", 1), secret)
        client = Client(self._running.port, self._running.site.folder / "ca.crt")
        for _ in range(count):
            self._count += 1
            key = EphemeralKey()
            nonce = client.nonce()
            additional = write_additional_evidence(self._issuer.token(uid=f"pod-{self._count // 8}"))
            primary = document(self._device, binding(nonce, key.public, additional))
            answer = client.attest(write_attest(nonce, key.public, primary, additional))
            if answer.status != 200:
                raise RuntimeError(f"an attestation was answered with {answer.status}")
        client.close()
        return count


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
