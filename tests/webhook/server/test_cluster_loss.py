"""The webhook and the cluster that it watches: ready once it has seen it, never deciding on nothing."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path

from tests.support.paths import REVIEWS
from tests.support.until import until
from tests.webhook.cluster.apiserver import CLASSES, NAMESPACES, NODES, namespace, runtime_class
from tests.webhook.server.control_plane import control_plane, write_kubeconfig
from tests.webhook.server.process import Webhook, webhook

_POD = (REVIEWS / "pods-create-payments-by-replicaset-controller.json").read_bytes()


def _objects() -> dict[str, list[dict[str, object]]]:
    kata = {**runtime_class("kata-qemu-snp"), "scheduling": {}}
    return {NAMESPACES: [namespace("default", "inject")], NODES: [], CLASSES: [kata]}


def test_it_becomes_ready_when_it_has_seen_the_cluster_and_survives_its_loss(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        _survives(tmp_path, stack)


def _survives(tmp_path: Path, stack: contextlib.ExitStack) -> None:
    with control_plane(tmp_path, _objects()) as kubeconfig:
        process = stack.enter_context(webhook(tmp_path, environment={"KUBECONFIG": str(kubeconfig)}))
        until(lambda: process.get("/readyz")[0] == 200)
        _, answer = process.post("/mutate/pod/inject", _POD)
        assert json.loads(answer)["response"]["auditAnnotations"]["decision"] == "mutated"
    # The cluster is gone now; what was seen a moment ago still counts, and its age is visible.
    until(lambda: _age(process) > 1)
    _, answer = process.post("/mutate/pod/inject", _POD)
    assert json.loads(answer)["response"]["auditAnnotations"]["decision"] == "mutated"
    # After some seconds it makes room for replicas that are not cut off; what reaches it is decided all the same.
    until(lambda: re.search(r"no answer from the API server for \d\d+ s", process.get("/readyz")[1]))
    _, answer = process.post("/mutate/pod/inject", _POD)
    assert json.loads(answer)["response"]["auditAnnotations"]["decision"] == "mutated"


def test_without_a_view_of_the_cluster_it_is_not_ready_and_refuses(tmp_path: Path) -> None:
    kubeconfig = write_kubeconfig(tmp_path, "http://127.0.0.1:9")
    with webhook(tmp_path, environment={"KUBECONFIG": str(kubeconfig)}) as running:
        status, text = running.get("/readyz")
        assert status == 503
        assert "[-]cluster: not listed yet: namespaces, nodes, runtimeclasses" in text
        assert running.get("/healthz")[0] == 200
        for path in ("/mutate/pod", "/mutate/pod/enforce", "/mutate/pod/none"):
            _, answer = running.post(path, _POD)
            response = json.loads(answer)["response"]
            assert response["allowed"] is (path == "/mutate/pod/none"), "the path alone says the mode"
            assert response.get("status", {}).get("code") == (None if response["allowed"] else 503)
        assert running.post("/mutate/pod/mistyped", _POD)[0] == 404


def _age(process: Webhook) -> float:
    _, text = process.get("/metrics")
    line = next(line for line in text.splitlines() if line.startswith("morphisms_snapshot_age_seconds "))
    return float(line.split()[1])
