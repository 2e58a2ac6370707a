"""Admission: the decision alone, the server beside a minimal Go handler, memory after many reviews."""

from __future__ import annotations

import contextlib
import copy
import http.client
import json
import os
import re
import select
import signal
import ssl
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.bench.figures import microseconds, spread
from tests.bench.golang import binary
from tests.support import in_cluster
from tests.support.certificates import write_pair
from tests.support.paths import REVIEWS
from tests.webhook.cluster.apiserver import CLASSES, NAMESPACES, NODES, namespace
from tests.webhook.server.control_plane import pods_control_plane
from webhook.configuration.model import Configuration
from webhook.decide import decide
from webhook.modes import Mode
from webhook.review import read_review, write_review
from webhook.snapshot import RuntimeClassRecord, Snapshot

_REVIEW = REVIEWS / "pods-create-payments-by-replicaset-controller.json"
_ROUNDS = 5
_SECONDS = 3
_REVIEWS = 100_000
_NODES = 5_000


def main() -> None:
    """Every admission row of the budgets."""
    body = json.dumps(json.loads(_REVIEW.read_text()), separators=(",", ":")).encode()
    decision_alone(body)
    with tempfile.TemporaryDirectory() as folder:
        write_pair(Path(folder))
        beside_go(Path(folder), body)
        memory(Path(folder), body)


def decision_alone(body: bytes) -> None:
    """decide and serialise, without parsing: budget 80 µs median; 2,000 variables 5 ms."""
    configuration = Configuration()
    snapshot = Snapshot(
        {"default": Mode.INJECT}, {}, {"kata-qemu-snp": RuntimeClassRecord("kata-qemu-snp", "kata-qemu-snp")}
    )
    request = read_review(body, "/mutate/pod")
    times = microseconds(lambda: write_review("u", decide(request, configuration, snapshot)))
    print(f"decision, recorded Knative pod ({len(body):,} bytes): {spread(times, ' µs')}; budget 80 µs median")
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
    print(f"decision, pod with 2,000 variables, 200 of them references: {spread(milliseconds, ' ms')}; budget 5 ms")


def beside_go(folder: Path, body: bytes) -> None:
    """Rate over TLS, one core, 16 connections, in turn with a Go handler that only decodes and answers: budget 1x."""
    ours, floor = [], []
    (folder / "body.json").write_bytes(body)
    with (
        pods_control_plane(folder / "account", _objects(3)) as url,
        _go_floor(folder) as go_port,
        _webhook(folder, url) as (port, _),
    ):
        for _ in range(_ROUNDS):
            ours.append(_load(folder, port, _SECONDS))
            floor.append(_load(folder, go_port, _SECONDS))
    ratios = [one["rate"] / other["rate"] for one, other in zip(ours, floor, strict=True)]
    failed = sum(run["failed"] for run in ours)
    print(f"pod mutation over TLS, one core, 16 connections: {spread([run['rate'] for run in ours], '/s')}")
    print(f"  Go handler that only decodes and answers:      {spread([run['rate'] for run in floor], '/s')}")
    print(f"  ratio: {spread(ratios, 'x')}; budget 1x; failed {failed}")
    print(f"  p50 {statistics.median(run['p50_ms'] for run in ours):.2f} ms,", end=" ")
    print(f"p99 {statistics.median(run['p99_ms'] for run in ours):.2f} ms")


def memory(folder: Path, body: bytes) -> None:
    """Resident set of a replica with 5,000 nodes, before and after 100,000 reviews: budget 80 MB, no growth."""
    (folder / "body.json").write_bytes(body)
    with pods_control_plane(folder / "account", _objects(_NODES)) as url, _webhook(folder, url) as (port, pid):
        _load(folder, port, 5, most=2_000)
        before = _resident_mb(pid)
        half = _load(folder, port, 120, most=_REVIEWS // 2)["requests"]
        middle = _resident_mb(pid)
        whole = half + _load(folder, port, 120, most=_REVIEWS - half)["requests"]
        after = _resident_mb(pid)
    print(
        f"resident with {_NODES:,} nodes: {before:.0f} MB after 2,000 reviews,"
        f" {middle:.0f} MB after {half + 2_000:,}, {after:.0f} MB after {whole + 2_000:,}; budget 80 MB, no growth"
    )


def _objects(nodes: int) -> dict[str, list[dict[str, Any]]]:
    """A cluster with that many recorded nodes, as its API server lists it."""
    recorded = json.loads((_REVIEW.parent / "nodes-status-update-snp-0-by-admin.json").read_text())
    listed = []
    for index in range(nodes):
        node = copy.deepcopy(recorded["request"]["object"])
        node["metadata"]["name"] = f"node-{index}"
        node["metadata"].setdefault("labels", {})["kubernetes.io/hostname"] = f"node-{index}"
        listed.append(node)
    return {
        NAMESPACES: [namespace("default", "inject")],
        NODES: listed,
        CLASSES: [{"kind": "RuntimeClass", "metadata": {"name": "kata-qemu-snp"}, "handler": "kata-qemu-snp"}],
    }


@contextlib.contextmanager
def _webhook(folder: Path, url: str) -> Iterator[tuple[int, int]]:
    """(port, pid) of a webhook process on one core, once it has seen its cluster as a pod in it."""
    command = in_cluster.command(folder / "account", "webhook", "--listen", "127.0.0.1:0")
    command += ["--tls-cert", str(folder / "tls.crt"), "--tls-key", str(folder / "tls.key")]
    log = (folder / "webhook.log").open("w+")
    process = subprocess.Popen(["taskset", "-c", "0", *command], stderr=log, env=in_cluster.environment(url))
    try:
        port = _logged_port(process, folder / "webhook.log")
        _until_ready(folder, port)
        yield port, process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def _logged_port(process: subprocess.Popen[bytes], log: Path) -> int:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        found = re.search(r'"event":"listening","address":\["127.0.0.1",(\d+)\]', log.read_text())
        if found:
            return int(found[1])
        time.sleep(0.05)
    raise RuntimeError(f"the webhook did not start: {log.read_text()}")


def _until_ready(folder: Path, port: int) -> None:
    context = ssl.create_default_context(cafile=str(folder / "ca.crt"))
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=10, context=context)
        connection.request("GET", "/readyz")
        if connection.getresponse().status == 200:
            return
        time.sleep(0.1)
    raise RuntimeError("the webhook did not become ready")


@contextlib.contextmanager
def _go_floor(folder: Path) -> Iterator[int]:
    command = [binary("floor"), "-tls-cert", folder / "tls.crt", "-tls-key", folder / "tls.key"]
    process = subprocess.Popen(["taskset", "-c", "0", *map(str, command)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        if not select.select([process.stdout], [], [], 30)[0]:
            raise RuntimeError("the Go handler did not start")
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()


def _load(folder: Path, port: int, seconds: float, most: int = 1 << 30) -> dict[str, Any]:
    core = "1" if (os.cpu_count() or 1) > 1 else "0"
    command: list[object] = ["taskset", "-c", core, binary("load"), "-url", f"https://127.0.0.1:{port}/mutate/pod"]
    command += ["-ca", folder / "ca.crt", "-body", folder / "body.json", "-seconds", seconds, "-most", most]
    done = subprocess.run(list(map(str, command)), capture_output=True, check=True, timeout=seconds + 60)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def _resident_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]
