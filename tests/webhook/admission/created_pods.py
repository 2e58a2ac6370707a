"""What admission decides about a pod that a ReplicaSet's controller creates in the namespace `shop`."""

from __future__ import annotations

import json
from typing import Any

from webhook.configuration.model import Configuration
from webhook.decide import decide
from webhook.decision import Decision
from webhook.modes import Mode
from webhook.review import read_review
from webhook.snapshot import RuntimeClassRecord, Snapshot

_CLASSES = {"kata-qemu-snp": RuntimeClassRecord("kata-qemu-snp", "kata-qemu-snp")}


def decide_pod(pod: dict[str, Any], path: str, mode: Mode) -> Decision:
    """The decision by the default configuration."""
    request = {
        "uid": "u",
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "resource": {"group": "", "version": "v1", "resource": "pods"},
        "operation": "CREATE",
        "namespace": "shop",
        "userInfo": {"username": "system:serviceaccount:kube-system:replicaset-controller"},
        "object": pod,
    }
    review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}
    snapshot = Snapshot({"shop": mode}, {}, _CLASSES)
    return decide(read_review(json.dumps(review).encode(), path), Configuration(), snapshot)
