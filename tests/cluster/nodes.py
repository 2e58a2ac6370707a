"""Nodes and the RuntimeClass: objects only, for no kubelet runs here."""

from __future__ import annotations

from typing import Any

import yaml

from tests.cluster.client import STRATEGIC_PATCH, Client, Object
from tests.support.paths import ROOT

MANIFESTS = ROOT / "manifests"
NODES = "/api/v1/nodes"
SNP_LABEL = "amd.feature.node.kubernetes.io/snp"
RUNTIME_CLASSES = "/apis/node.k8s.io/v1/runtimeclasses"
KATA_LABEL = "katacontainers.io/kata-runtime"
KATA: Object = yaml.safe_load((MANIFESTS / "examples" / "runtime-class.yaml").read_text())


def add_node(admin: Client, name: str, labels: dict[str, str] | None = None, **spec: Any) -> Object:
    """A node that the scheduler may use."""
    node = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, **(labels or {})}},
        "spec": spec,
    }
    admin.create(NODES, node)
    room = {"cpu": "4000", "memory": "4000Gi", "pods": "100000", "ephemeral-storage": "4000Gi"}
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady"}
    admin.patch(
        f"{NODES}/{name}/status",
        {"status": {"capacity": room, "allocatable": room, "conditions": [ready]}},
        STRATEGIC_PATCH,
    )
    # Given by the API server to each new node; the controller that would take it away needs heartbeats.
    taints = [taint for taint in admin.get(f"{NODES}/{name}")["spec"]["taints"] if "not-ready" not in taint["key"]]
    return admin.patch(f"{NODES}/{name}", {"spec": {"taints": taints}})


def add_confidential_node(admin: Client, name: str) -> Object:
    """A node that hosts SNP guests, as Kata's installer and the feature discovery label it."""
    return add_node(admin, name, {SNP_LABEL: "true", KATA_LABEL: "true"})
