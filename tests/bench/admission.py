"""Admission: the decision alone, the server beside a minimal Go handler, memory after many reviews."""

from __future__ import annotations

import json
import statistics
import tempfile
from pathlib import Path

from server.service import tune_garbage_collector
from tests.bench.figures import microseconds, spread
from tests.bench.served import (
    REVIEW,
    Served,
    go_floor,
    load,
    objects,
    processes,
    processor_seconds,
    resident_mb,
    webhook,
)
from tests.support.certificates import write_pair
from tests.webhook.server.control_plane import pods_control_plane
from webhook.configuration.model import Configuration
from webhook.decide import decide
from webhook.modes import Mode
from webhook.review import read_review, write_review
from webhook.snapshot import RuntimeClassRecord, Snapshot

_ROUNDS = 5
_SECONDS = 3
_REVIEWS = 100_000
_NODES = 5_000


def main() -> None:
    """Every admission row of the budgets."""
    body = json.dumps(json.loads(REVIEW.read_text()), separators=(",", ":")).encode()
    tune_garbage_collector()  # as the server does
    decision_alone(body)
    with tempfile.TemporaryDirectory() as folder:
        write_pair(Path(folder))
        beside_go(Path(folder), body)
        beside_workers(Path(folder), body)
        memory(Path(folder), body)


def decision_alone(body: bytes) -> None:
    """decide and serialise, without parsing: budget 60 µs median; 2,000 variables 3 ms."""
    configuration = Configuration()
    snapshot = Snapshot(
        {"default": Mode.INJECT}, {}, {"kata-qemu-snp": RuntimeClassRecord("kata-qemu-snp", "kata-qemu-snp")}
    )
    request = read_review(body, "/mutate/pod")
    times = microseconds(lambda: write_review("u", decide(request, configuration, snapshot)))
    print(f"decision, recorded Knative pod ({len(body):,} bytes): {spread(times, ' µs')}; budget 60 µs median")
    print(f"  parsing its review: {spread(microseconds(lambda: read_review(body, '/mutate/pod')), ' µs')}")
    review = json.loads(body)
    container = review["request"]["object"]["spec"]["containers"][0]
    container["command"] = ["/app"]
    container["env"] = [
        {"name": f"VARIABLE_{index}", "value": "vault:~/db#k" if index % 10 == 0 else f"plain value {index}"}
        for index in range(2_000)
    ]
    large = read_review(json.dumps(review).encode(), "/mutate/pod")
    times = microseconds(lambda: write_review("u", decide(large, configuration, snapshot)), rounds=20, calls=3)
    milliseconds = [value / 1000 for value in times]
    print(f"decision, pod with 2,000 variables, 200 of them references: {spread(milliseconds, ' ms')}; budget 3 ms")


def beside_go(folder: Path, body: bytes) -> None:
    """Rate over TLS, one core, 16 connections, in turn with a Go handler that only decodes and answers: budget 1x."""
    ours, floor = [], []
    (folder / "body.json").write_bytes(body)
    with (
        pods_control_plane(folder / "account", objects(3)) as url,
        go_floor(folder) as go,
        webhook(folder, url) as served,
    ):
        for _ in range(_ROUNDS):
            ours.append(load(folder, served.port, _SECONDS))
            floor.append(load(folder, go.port, _SECONDS))
    ratios = [one["rate"] / other["rate"] for one, other in zip(ours, floor, strict=True)]
    failed = sum(run["failed"] for run in ours)
    print(f"pod mutation over TLS, one core, 16 connections: {spread([run['rate'] for run in ours], '/s')}")
    print(f"  Go handler that only decodes and answers:      {spread([run['rate'] for run in floor], '/s')}")
    print(f"  ratio: {spread(ratios, 'x')}; budget 1x; failed {failed}")
    print(f"  p50 {statistics.median(run['p50_ms'] for run in ours):.2f} ms,", end=" ")
    print(f"p99 {statistics.median(run['p99_ms'] for run in ours):.2f} ms")


def beside_workers(folder: Path, body: bytes) -> None:
    """Processor time of one request with two workers, in turn with one process, on one core: budget 1.15x."""
    (folder / "body.json").write_bytes(body)
    rates: tuple[list[float], list[float]] = ([], [])
    costs: tuple[list[float], list[float]] = ([], [])
    failed = 0
    with (
        pods_control_plane(folder / "account", objects(3)) as url,
        webhook(folder, url) as one,
        webhook(folder, url, workers=2) as two,
    ):
        for _ in range(_ROUNDS):
            for served, rate, cost in zip((one, two), rates, costs, strict=True):
                before = _processor(served)
                run = load(folder, served.port, _SECONDS)
                cost.append((_processor(served) - before) / run["requests"] * 1e6)
                rate.append(run["rate"])
                failed += run["failed"]
        sizes = [resident_mb(pid) for pid in processes(two.pid)]
    print("two workers that share the port, beside one process, both on one core, 16 connections:")
    print(f"  processor time of one request: {spread(costs[1], ' µs')}, beside {spread(costs[0], ' µs')}")
    print(f"  ratio: {spread([a / b for a, b in zip(costs[1], costs[0], strict=True)], 'x')}; budget 1.15x")
    print(f"  rate: {spread(rates[1], '/s')}, beside {spread(rates[0], '/s')}; failed {failed}")
    print(f"  resident: parent {sizes[0]:.0f} MB, workers {', '.join(f'{size:.0f} MB' for size in sizes[1:])}")


def _processor(served: Served) -> float:
    return sum(map(processor_seconds, processes(served.pid)))


def memory(folder: Path, body: bytes) -> None:
    """Resident set of a replica with 5,000 nodes, before and after 100,000 reviews: budget 80 MB, no growth."""
    (folder / "body.json").write_bytes(body)
    with pods_control_plane(folder / "account", objects(_NODES)) as url, webhook(folder, url) as served:
        load(folder, served.port, 5, most=2_000)
        before = resident_mb(served.pid)
        half = load(folder, served.port, 120, most=_REVIEWS // 2)["requests"]
        middle = resident_mb(served.pid)
        whole = half + load(folder, served.port, 120, most=_REVIEWS - half)["requests"]
        after = resident_mb(served.pid)
    print(
        f"resident with {_NODES:,} nodes: {before:.0f} MB after 2,000 reviews,"
        f" {middle:.0f} MB after {half + 2_000:,}, {after:.0f} MB after {whole + 2_000:,}; budget 80 MB, no growth"
    )
