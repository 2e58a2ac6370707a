"""A stand-in of a cluster that runs Jobs: the pod of each ends at once, as the test says, with the test's log."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tests.cli.live.stand_in import SYSTEM, StandIn

Json = dict[str, Any]
Runner = TypeVar("Runner", bound="JobRunner")

JOBS = "/apis/batch/v1/namespaces/shop/jobs"
WEBHOOK_IMAGE = "registry.example/webhook@sha256:" + "c" * 64
_UID = "uid-of-the-job"


def _pod(status: Json, uid: str = _UID) -> Json:
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": "x", "uid": uid, "controller": True}
    return {"metadata": {"name": "the-jobs-pod", "ownerReferences": [owner]}, "status": status}


@dataclass
class JobRunner(StandIn):
    """`log` is what the pod prints; `jobs` were created, `deleted` lists each deletion with its query.

    `forged` pods stand before the Job's own in the list. `made` is set once somebody waits for the pod.
    """

    status: Json = field(default_factory=lambda: {"phase": "Succeeded"})
    log: str = ""
    forged: list[Json] = field(default_factory=list)
    jobs: list[Json] = field(default_factory=list)
    deleted: list[tuple[str, Json]] = field(default_factory=list)
    made: threading.Event = field(default_factory=threading.Event)
    gone: threading.Event = field(default_factory=threading.Event)

    @property
    def name(self) -> str:
        """Of the one Job."""
        [job] = self.jobs
        return str(job["metadata"]["name"])

    def answer(self, method: str, path: str, query: dict[str, list[str]], body: Json) -> tuple[int, Json | str]:
        if (method, path) == ("POST", JOBS) and path not in self.forbidden:
            self.jobs.append(body)
            return 201, {**body, "metadata": {**body["metadata"], "uid": _UID}}
        if "labelSelector" in query:
            assert query["labelSelector"] == [f"batch.kubernetes.io/job-name={self.name}"]
            self.made.set()
            return 200, {"items": [*self.forged, _pod(self.status)]}
        if path.endswith("/pods/the-jobs-pod/log"):
            return (200, self.log) if self.log else (400, {})
        if method == "DELETE":
            self.deleted.append((path, query))
            self.gone.set()
            return 200, {}
        return super().answer(method, path, query, body)

    @classmethod
    def on(cls: type[Runner], cluster: StandIn, log: str = "", **status: Any) -> Runner:
        """With the lists and objects of `cluster`."""
        return cls(cluster.lists, cluster.objects, log=log, status={"phase": "Succeeded", **status})


@dataclass
class RealJobRunner(JobRunner):
    """Runs the Job's container here, as a kubelet would, and its pod's log is what that prints."""

    running: subprocess.Popen[str] | None = None

    def answer(self, method: str, path: str, query: dict[str, list[str]], body: Json) -> tuple[int, Json | str]:
        if (method, path) == ("POST", JOBS):
            [container] = body["spec"]["template"]["spec"]["containers"]
            environment = {each["name"]: each["value"] for each in container["env"]}
            command = [sys.executable, "-m", "cli.main", *container["args"]]
            self.running = subprocess.Popen(
                command, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        if "labelSelector" in query:
            self._look()
        return super().answer(method, path, query, body)

    def _look(self) -> None:
        """A start takes what it takes on a busy machine, so no answer waits for it."""
        if self.running is None:
            return
        if self.running.poll() is None:
            self.status = {"phase": "Running"}
            return
        self.log, error = self.running.communicate()
        is_well = (self.running.returncode, error) == (0, "")
        self.status, self.running = {"phase": "Succeeded" if is_well else "Failed"}, None


def probed_namespace(
    cluster: Runner,
    configuration: str,
    mode: str | None = "audit",
    *workloads: Json,
    issuer: str = "https://issuer.example",
    keys: tuple[str, ...] = ("key-1",),
) -> Runner:
    """`shop` in it, with the webhook and its configuration, and what the API server tells of its tokens."""
    cluster.add("shop", mode, *workloads)
    cluster.objects[f"{SYSTEM}/morphisms-webhook"] = {"data": {"configuration.yaml": configuration}}
    template = {"spec": {"containers": [{"name": "webhook", "image": WEBHOOK_IMAGE}]}}
    path = "/apis/apps/v1/namespaces/morphisms-system/deployments/morphisms-webhook"
    cluster.objects[path] = {"spec": {"template": template}}
    cluster.objects["/.well-known/openid-configuration"] = {"issuer": issuer}
    cluster.objects["/openid/v1/jwks"] = {"keys": [{"kid": key} for key in keys]}
    return cluster
