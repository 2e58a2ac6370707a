"""What one webhook, one verifier and one Vault carry: costs measured here, and a simulation of cold starts by them.

Measured: the webhook's processor time for one review, its memory by nodes, and OpenBao's for one login and one read.
The verifier's is the constant below, which `python -m tests.bench verifier` prints. Simulated: cold starts that arrive
at random (Poisson) at components that serve one request per core at a time, in order of arrival, each request taking
its measured time. So what the simulation says beyond one core is arithmetic, and assumes that cores do not hinder each
other.
"""

from __future__ import annotations

import heapq
import json
import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.served import REVIEW, objects, processor_seconds, resident_mb, send, webhook
from tests.support.certificates import write_pair
from tests.support.openbao import openbao
from tests.webhook.server.control_plane import pods_control_plane

_REQUESTS = 2_000
_NODES = (100, 5_000)
_LOGINS = 300
# Processor time of one attestation with the login, in ms: by the verifier's bench, on the machine of docs/scale.md.
_ATTESTATION_MS = 1000 / 129
# Of one cold start: the pod is rewritten, and again after other webhooks, validated, and bound to a node.
_REVIEWS_A_START = 4
_RATES = (50, 100, 200, 500)
_CORES = (1, 2, 4, 8)
_STARTS = 20_000
_SEED = 16
# A request that waits longer than this holds up a start that people notice.
_MOST_WAIT_MS = 100.0


@dataclass(frozen=True)
class Component:
    """What one cold start costs a component: so many requests of `milliseconds` each."""

    name: str
    requests: int
    milliseconds: float

    @property
    def per_start(self) -> float:
        """Processor seconds of one cold start."""
        return self.requests * self.milliseconds / 1000


def main() -> None:
    """The measured costs, then the table that the simulation makes of them."""
    components = [_webhook(), Component("verifier", 1, _ATTESTATION_MS), *_vault()]
    print("simulated: cold starts a second; share of its cores that a component uses, and the wait of one in a hundred")
    for component in components:
        print(f"  {component.name}: {component.requests} requests of {component.milliseconds:.2f} ms a start")
        for rate in _RATES:
            cells = [_cell(component, rate, cores) for cores in _CORES]
            print(f"    {rate:4}/s  " + "  ".join(cells))
        print(f"    one core carries {1 / component.per_start:,.0f} a second at most")
    first = max(components, key=lambda each: each.per_start)
    print(f"the first wall is the {first.name}: {1 / first.per_start:,.0f} cold starts a second for each core")


def _cell(component: Component, rate: int, cores: int) -> str:
    share = rate * component.per_start / cores
    if share >= 1:
        return f"{cores} cores: not carried"
    wait = waits(component, rate, cores)[int(0.99 * _STARTS * component.requests)]
    return f"{cores} cores: {share:.0%}, {wait:.0f} ms" + ("" if wait <= _MOST_WAIT_MS else "!")


def waits(component: Component, rate: float, cores: int, starts: int = _STARTS, seed: int = _SEED) -> Sequence[float]:
    """How long each request waits for a core, in ms, ascending; the requests of a start follow one another."""
    draw = random.Random(seed)
    arrivals: list[tuple[float, int]] = []
    now = 0.0
    for _ in range(starts):
        now += draw.expovariate(rate) * 1000
        arrivals.append((now, component.requests))
    heapq.heapify(arrivals)
    free = [0.0] * cores
    found = []
    while arrivals:
        due, left = heapq.heappop(arrivals)
        begins = max(due, free[0])
        ends = begins + component.milliseconds
        heapq.heapreplace(free, ends)
        found.append(begins - due)
        if left > 1:
            heapq.heappush(arrivals, (ends, left - 1))
    return sorted(found)


def _webhook() -> Component:
    body = json.dumps(json.loads(REVIEW.read_text()), separators=(",", ":")).encode()
    resident = []
    cost = 0.0
    for nodes in _NODES:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_pair(folder)
            (folder / "body.json").write_bytes(body)
            with pods_control_plane(folder / "account", objects(nodes)) as url, webhook(folder, url) as served:
                target = f"https://127.0.0.1:{served.port}/mutate/pod"
                options = ("-body", folder / "body.json")
                send(target, folder, *options, seconds=60, most=_REQUESTS // 4)
                before = processor_seconds(served.pid)
                requests = send(target, folder, *options, seconds=60, most=_REQUESTS)["requests"]
                cost = (processor_seconds(served.pid) - before) / requests * 1000
                resident.append(resident_mb(served.pid))
    slope = (resident[1] - resident[0]) / (_NODES[1] - _NODES[0]) * 1000
    print(f"measured: webhook, one review {cost:.2f} ms of processor;", end=" ")
    print(f"{resident[0]:.0f} MB with {_NODES[0]} nodes, {resident[1]:.0f} MB with {_NODES[1]:,}:", end=" ")
    print(f"{slope:.2f} MB for 1,000 nodes (pods are not held)")
    return Component("webhook", _REVIEWS_A_START, cost)


def _vault() -> list[Component]:
    with tempfile.TemporaryDirectory() as name, openbao(Path(name)) as bao:
        bao.done("POST", "secret/data/bench", {"data": {"password": "of a bench"}})

        def cost(call: str, path: str, body: object = None) -> float:
            before = processor_seconds(bao.process.pid)
            for _ in range(_LOGINS):
                bao.done(call, path, body)
            return (processor_seconds(bao.process.pid) - before) / _LOGINS * 1000

        token = cost("POST", "auth/token/create", {"ttl": "10m", "policies": ["default"]})
        read = cost("GET", "secret/data/bench")
    print(f"measured: OpenBao in memory, a token {token:.2f} ms of processor, a read {read:.2f} ms")
    return [Component("Vault", 3, (token * 2 + read) / 3)]
