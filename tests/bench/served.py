"""The webhook as a process of its own on one core, the Go handler beside it, and the load on either."""

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
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tests.bench.golang import binary
from tests.support import in_cluster
from tests.support.paths import REVIEWS
from tests.webhook.cluster.apiserver import CLASSES, NAMESPACES, NODES, namespace

REVIEW = REVIEWS / "pods-create-payments-by-replicaset-controller.json"


def objects(nodes: int) -> dict[str, list[dict[str, Any]]]:
    """A cluster with that many recorded nodes, as its API server lists it."""
    recorded = json.loads((REVIEW.parent / "nodes-status-update-snp-0-by-admin.json").read_text())
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


class Served(NamedTuple):
    """A server under load: its ports with and without TLS, and its process."""

    port: int
    plain_port: int
    pid: int


@contextlib.contextmanager
def webhook(folder: Path, url: str, workers: int = 1, samples: Path | None = None) -> Iterator[Served]:
    """A webhook on one core, once it, or each of its workers, has seen its cluster as a pod in it.

    `samples`: where a sampler in the process leaves what it saw.
    """
    command = in_cluster.command(folder / "account", "webhook", "--listen", "127.0.0.1:0")
    if samples is not None:
        command[1:1] = [str(Path(__file__).parent / "sampled.py"), str(samples)]
    command += ["--metrics-listen", "127.0.0.1:0"]
    command += ["--tls-cert", str(folder / "tls.crt"), "--tls-key", str(folder / "tls.key")]
    command += ["--workers", str(workers)]
    path = folder / f"webhook-{workers}.log"
    log = path.open("w+")
    process = subprocess.Popen(["taskset", "-c", "0", *command], stderr=log, env=in_cluster.environment(url))
    try:
        served = _logged(process, path)
        _until_ready(folder, served.port)
        if workers > 1:
            _until_all_serve(served.plain_port, workers)
        yield served
    finally:
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def _logged(process: subprocess.Popen[bytes], log: Path) -> Served:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        address = r'\["127.0.0.1",(\d+)\]'
        found = re.search(rf'"event":"listening","address":{address},"metrics":{address}', log.read_text())
        if found:
            return Served(int(found[1]), int(found[2]), process.pid)
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


def _until_all_serve(plain_port: int, workers: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        connection = http.client.HTTPConnection("127.0.0.1", plain_port, timeout=10)
        connection.request("GET", "/metrics")
        if f"\nmorphisms_workers {workers}.0\n".encode() in connection.getresponse().read():
            return
        time.sleep(0.2)
    raise RuntimeError("not all workers became ready")


@contextlib.contextmanager
def go_floor(folder: Path) -> Iterator[Served]:
    """The Go handler on the same core."""
    command = [binary("floor"), "-tls-cert", folder / "tls.crt", "-tls-key", folder / "tls.key"]
    process = subprocess.Popen(["taskset", "-c", "0", *map(str, command)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        if not select.select([process.stdout], [], [], 30)[0]:
            raise RuntimeError("the Go handler did not start")
        port, plain_port = map(int, process.stdout.readline().split())
        yield Served(port, plain_port, process.pid)
    finally:
        process.kill()
        process.wait()


def load(folder: Path, port: int, seconds: float, most: int = 1 << 30) -> dict[str, Any]:
    """Rate and latencies of the recorded review, posted on 16 kept connections."""
    return send(
        f"https://127.0.0.1:{port}/mutate/pod", folder, "-body", folder / "body.json", seconds=seconds, most=most
    )


def send(url: str, folder: Path, *options: object, seconds: float, most: int = 1 << 30) -> dict[str, Any]:
    """Rate and latencies of one kind of request, as `go/load` sends it from the other core."""
    core = "1" if (os.cpu_count() or 1) > 1 else "0"
    command: list[object] = ["taskset", "-c", core, binary("load"), "-url", url, "-ca", folder / "ca.crt", *options]
    command += ["-seconds", seconds, "-most", most]
    done = subprocess.run(list(map(str, command)), capture_output=True, check=True, timeout=seconds + 60)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def resident_mb(pid: int) -> float:
    """What a process holds in memory."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"process {pid} has no memory of its own")


def processes(pid: int) -> list[int]:
    """A process and those that it has started."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *map(int, children)]


def processor_seconds(pid: int) -> float:
    """Processor time that a process's threads have used."""
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9
