"""What an audit found in a small cluster with good, fixable and bad workloads, and with hostile names."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from cli.live.workloads import Evaluations
from webhook.configuration.model import Configuration
from webhook.modes import Mode
from webhook.scanner.evaluation import Evaluator
from webhook.snapshot import RuntimeClassRecord, Snapshot

HOSTILE = "<img src=x onerror=document.title='owned'>"
PASSWORD = "tr0ub4dor&3-Xx9"
NOW = datetime(2027, 1, 1, tzinfo=UTC)
IMAGE = "registry.example/app@sha256:" + "a" * 64
MODES = {"shop": Mode.AUDIT, "bank": Mode.INJECT, "lab": Mode.ABSENT}
SNAPSHOT = Snapshot(
    namespaces=MODES,
    runtime_classes={"kata-qemu-snp": RuntimeClassRecord("kata-qemu-snp", "kata-qemu-snp")},
    now=NOW,
)


def deployment(namespace: str, name: str, container: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    """A Deployment of one container."""
    containers = [{"name": "app", "image": IMAGE, **(container or {})}]
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"template": {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": containers, **spec}}},
    }


WORKLOADS = (
    deployment("shop", "good"),
    deployment("shop", "plaintext", {"env": [{"name": "DB_PASSWORD", "value": PASSWORD}]}),
    deployment("shop", "node", hostNetwork=True),
    deployment("bank", "good"),
    deployment("lab", HOSTILE, {"name": "</script><script>document.title='owned'</script>"}, hostPID=True),
)


def found(*workloads: dict[str, Any], snapshot: Snapshot | None = SNAPSHOT) -> Evaluations:
    """The audit of these workloads; without any, of all."""
    evaluator = Evaluator(Configuration(), snapshot)
    evaluations = []
    for item in workloads or WORKLOADS:
        evaluation = evaluator.evaluate(item, target=Mode.ENFORCE, mode=MODES[item["metadata"]["namespace"]])
        assert evaluation is not None
        evaluations.append(evaluation)
    return Evaluations(Mode.ENFORCE, dict(MODES), evaluations)
