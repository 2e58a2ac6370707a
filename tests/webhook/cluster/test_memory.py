"""5,000 nodes fit: a process of its own lists and watches them, and says what it grew by."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from typing import Any

import pytest

from tests.support.paths import REVIEWS
from tests.webhook.cluster.apiserver import NODES, ApiServer

NODES_COUNT = 5_000
NODE_BYTES = 8_000


_CLIENT = """
import asyncio, json, sys, time
from server.kubernetes.client import Client
from server.kubernetes.credentials import ServiceAccount
from webhook.configuration.model import Configuration
from webhook.cluster.live import LiveCluster

def resident(key):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(key))

async def main(url, nodes):
    listed = asyncio.Event()
    def seen(resource, what):
        if (resource, what) == ("nodes", "listed"):
            listed.set()
    async def connect():
        return Client(ServiceAccount(url))
    cluster = LiveCluster(Configuration(), connect=connect, observe=seen)
    before = resident("VmRSS")
    task = asyncio.create_task(cluster.run())
    started = time.monotonic()
    await listed.wait()
    seconds = time.monotonic() - started
    assert len(cluster.current().nodes) == nodes
    first = resident("VmRSS") - before
    for _ in range(3):
        listed.clear()
        cluster._nodes.relist()
        await listed.wait()
    # A review's look at the cluster copies nothing.
    assert cluster.current().nodes is cluster.current().nodes
    print(json.dumps({"before_mib": before, "first_mib": first, "after_mib": resident("VmRSS") - before,
                      "peak_mib": resident("VmHWM") - before, "list_seconds": seconds}))
    task.cancel()

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


def _nodes() -> list[dict[str, Any]]:
    review = json.loads((REVIEWS / "nodes-status-update-snp-0-by-admin.json").read_text())
    base = review["request"]["object"]
    image = {"names": ["registry.example/library/" + "x" * 60 + "@sha256:" + "a" * 64], "sizeBytes": 12345678}
    nodes = []
    text = json.dumps(base)
    for number in range(NODES_COUNT):
        item = json.loads(text)
        name = f"node-{number:05}"
        item["metadata"] |= {"name": name, "uid": f"{number:032x}"}
        item["metadata"]["labels"] |= {
            "kubernetes.io/hostname": name,
            "topology.kubernetes.io/zone": f"zone-{number % 3}",
            "amd.feature.node.kubernetes.io/snp": "true" if number % 2 else "false",
        }
        item["spec"] = {"taints": [{"key": "dedicated", "value": "snp", "effect": "NoSchedule"}]}
        missing = NODE_BYTES - len(json.dumps(item))
        item["status"]["images"] = [image] * max(0, missing // len(json.dumps(image)))
        nodes.append(item)
    return nodes


@pytest.mark.slow
async def test_five_thousand_nodes_need_little_memory(record_property: Any) -> None:
    server = ApiServer()
    for item in _nodes():
        server.put(NODES, item)
    server._history.clear()
    await server.start()
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _CLIENT, server.url, str(NODES_COUNT), stdout=subprocess.PIPE
        )
        output, _ = await process.communicate()
    finally:
        await server.stop()
    figures = json.loads(output)
    print(figures)
    for name, value in figures.items():
        record_property(name, value)
    assert figures["first_mib"] < 15
    # Listing again and again, as after each `410 Gone`, adds next to nothing.
    assert figures["after_mib"] < 15
    assert figures["peak_mib"] < 18
