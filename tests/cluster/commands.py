"""The commands that read a live cluster, and workloads for them to find."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import pytest

from cli.main import main
from tests.cluster.attacks import IMAGE
from tests.cluster.client import STRATEGIC_PATCH, Client, Object
from tests.cluster.controlplane import ControlPlane
from tests.cluster.namespace import Namespace
from tests.support.done import Done
from tests.support.until import until

PASSWORD = "tr0ub4dor&3-Xx9"
PLAINTEXT: Object = {"env": [{"name": "DB_PASSWORD", "value": PASSWORD}]}

Run = Callable[..., Done]


def runner(cluster: ControlPlane, capsys: pytest.CaptureFixture[str]) -> Run:
    """`run(COMMAND, option, …)` as the administrator, or as another `user`; it may print no value of the cluster."""

    def call(command: str, *options: str, user: Any = None) -> Done:
        capsys.readouterr()
        code = main([command, "--kubeconfig", str((user or cluster.admin).kubeconfig), *options])
        done = Done(code, *capsys.readouterr())
        assert PASSWORD not in done.out + done.err
        return done

    return call


def until_unchanged(client: Client, *arguments: Any, input: Any = None) -> None:
    """Return when `kubectl diff` sees no difference; while controllers write a status, it may see that."""

    def is_unchanged() -> bool:
        done = client.kubectl("diff", *arguments, input=input, check=False)
        return (done.code, done.out) == (0, "")

    until(is_unchanged)


def make_deployment(here: Namespace, name: str, container: Object | None = None, **spec: Any) -> Object:
    """A Deployment of one container, which its controller makes pods of."""
    labels = {"app": name}
    containers = [{"name": "app", "image": IMAGE, **(container or {})}]
    template = {"metadata": {"labels": labels}, "spec": {"containers": containers, **spec}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": here.name},
        "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": template},
    }


def create(here: Namespace, *deployments: Object) -> None:
    """Create them, as the administrator."""
    for each in deployments:
        here.admin.create(here.path("deployments", group="apps/v1"), each)


def rolled_out(here: Namespace, apps: Collection[str]) -> None:
    """Play the kubelet until these Deployments' rollouts have ended: new pods are ready, and deleted ones gone."""

    def has_ended(deployment: Object) -> bool:
        status = deployment.get("status", {})
        is_seen = status.get("observedGeneration") == deployment["metadata"]["generation"]
        return is_seen and status.get("replicas") == status.get("updatedReplicas") == status.get("availableReplicas")

    def ended() -> bool:
        found = {each["metadata"]["name"]: each for each in here.admin.items(here.deployments())}
        # Looked at after the Deployments: what these count no more may still be there.
        pods = here.admin.items(here.pods())
        for pod in pods:
            path = here.pods(pod["metadata"]["name"])
            if "deletionTimestamp" in pod["metadata"]:
                here.admin.request("DELETE", path, query={"gracePeriodSeconds": "0"})
            elif pod["metadata"]["labels"].get("app") in apps:
                status = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
                here.admin.request("PATCH", f"{path}/status", status, content_type=STRATEGIC_PATCH)
        return all(has_ended(found[name]) for name in apps) and not any(
            "deletionTimestamp" in pod["metadata"] for pod in pods
        )

    until(ended)
