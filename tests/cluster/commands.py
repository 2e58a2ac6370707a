"""The commands that read a live cluster, and workloads for them to find."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cli.main import main
from tests.cluster.attacks import IMAGE
from tests.cluster.client import Object
from tests.cluster.controlplane import ControlPlane
from tests.cluster.namespace import Namespace
from tests.support.done import Done

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
