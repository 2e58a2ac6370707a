"""A node whose pods' cgroup has too little memory left, while the machine has enough: what its kubelet evicts.

The node is a further kubelet, which bounds the cgroup above its pods. Evidence is simulated, and the runtime is plain
runc.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.client import Object
from tests.node.cluster import SMALL_MEBIBYTES, SMALL_NAME
from tests.node.node import Node
from tests.node.services import digest, service
from tests.node.stack import Stack
from tests.support.until import until

pytestmark = [pytest.mark.node, pytest.mark.slow]

NAMESPACE = "pressed"
_PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
_LABEL = "serving.knative.dev/service=eater"
_FILE = "/morphisms/secrets/db"
_PATIENCE_SECONDS = 600.0
# Above the 70% at which the kubelet evicts; with what else the pod takes, below the bound, at which the kernel kills.
_EATEN_MEBIBYTES = SMALL_MEBIBYTES * 78 // 100


@pytest.fixture(scope="module")
def small(stack: Stack) -> Iterator[Node]:
    """The one node that takes new pods."""
    node = stack.cluster.join_small()
    first = stack.cluster.node.path
    stack.admin.patch(first, {"spec": {"unschedulable": True}})
    stack.namespace(NAMESPACE, {"morphisms.dev/mode": "enforce"})
    try:
        yield node
    finally:
        stack.admin.patch(first, {"spec": {"unschedulable": None}})
        stack.admin.delete(f"/api/v1/namespaces/{NAMESPACE}")
        node.leave()


def test_a_pod_that_is_evicted_for_memory_says_so_and_its_successor_has_the_secrets(stack: Stack, small: Node) -> None:
    stack.morphisms.write_secret(f"knative/cluster/{NAMESPACE}/eater/db", password="of eater")
    annotations = {"morphisms.dev/secret-db": "~/db#password", "autoscaling.knative.dev/min-scale": "1"}
    stack.apply(service(stack.application.pinned, f"{NAMESPACE}/eater", annotations, env={"FILES": _FILE}))
    pod = stack.ready_pod(NAMESPACE, "eater", seconds=_PATIENCE_SECONDS)
    assert pod["spec"]["nodeName"] == SMALL_NAME
    assert _mounts(stack, pod) > 0
    # Not the machine's memory: the bound is the cgroup's.
    assert _bounds(stack) == {SMALL_MEBIBYTES << 20}

    stack.request(NAMESPACE, "eater-00001", path=f"/?eat={_EATEN_MEBIBYTES}", seconds=_PATIENCE_SECONDS)

    def evicted(pods: list[Object]) -> Object | None:
        return next((each for each in pods if _is(each, pod) and each["status"].get("reason") == "Evicted"), None)

    told = stack.admin.until(_PODS, evicted, seconds=_PATIENCE_SECONDS, labelSelector=_LABEL)["status"]["message"]
    assert "The node was low on resource: memory" in told
    assert "user-container" in told

    def successor(pods: list[Object]) -> bool:
        return any(
            each["status"].get("phase") == "Running"
            and all(status["ready"] for status in each["status"]["containerStatuses"])
            for each in pods
            if not _is(each, pod)
        )

    stack.admin.until(_PODS, successor, seconds=_PATIENCE_SECONDS, labelSelector=_LABEL)
    until(lambda: _file(stack) == digest("of eater"), _PATIENCE_SECONDS)
    # The evicted pod's object stays for its author to look at; its secrets are not in memory any more.
    until(lambda: _mounts(stack, pod) == 0, _PATIENCE_SECONDS)


def _is(one: Object, other: Object) -> bool:
    return bool(one["metadata"]["uid"] == other["metadata"]["uid"])


def _mounts(stack: Stack, pod: Object) -> int:
    """How many mounts on the node are of this pod's memory volumes."""
    lines = Path(f"/proc/{stack.sandbox.record.holder}/mountinfo").read_text().splitlines()
    uid = pod["metadata"]["uid"]
    return sum(f"/pods/{uid}/volumes/kubernetes.io~empty-dir/morphisms-" in line for line in lines)


def _bounds(stack: Stack) -> set[int]:
    """What the cgroup of all pods of the node is bound to, in bytes."""
    return {
        int(file.read_text())
        for folder in stack.sandbox.cgroup.folders
        for name in ("memory.limit_in_bytes", "memory.max")
        if (file := folder / SMALL_NAME / "kubepods" / name).exists()
    }


def _file(stack: Stack) -> str:
    answer = stack.request(NAMESPACE, "eater-00001", seconds=_PATIENCE_SECONDS)
    return str(answer.content["files"][_FILE]) if answer.status == 200 else ""
