"""An installation whose replicas are what the Deployment says at each moment, as kubelets would have it.

A new pod of it becomes a process, is reported ready when it is, gets SIGTERM when it is deleted, and is gone when its
process is: it serves until no connection comes to it any more. So rollouts, scaling and the namespace's deletion run
their course.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable

from tests.cluster.client import STRATEGIC_PATCH, ApiError, Object
from tests.cluster.controlplane import ControlPlane
from tests.cluster.installation import NAME, SYSTEM, Installation, Replica

_LOOK_SECONDS = 0.2


class KeptInstallation(Installation):
    """`start` waits for the first rollout, `rolled_out` for any later one."""

    def __init__(self, cluster: ControlPlane, folder: str = "base") -> None:
        super().__init__(cluster, folder)
        self._pods = f"/api/v1/namespaces/{SYSTEM}/pods"
        self._ready: dict[str, bool] = {}
        self._stopping: dict[str, Callable[[], bool]] = {}
        self._end = threading.Event()
        self._problem: BaseException | None = None
        self._thread = threading.Thread(target=self._keep, daemon=True)

    def start(self, replicas: int = 3) -> None:
        self.balancer.start(wait=False)
        self._thread.start()
        self.cluster.admin.until(f"/apis/apps/v1/namespaces/{SYSTEM}/deployments", lambda found: _asks(found, replicas))
        self.rolled_out()
        self.wait_until_answered()

    def rolled_out(self) -> None:
        """Wait, as its operator would, for the present rollout."""
        self.cluster.kubectl("-n", SYSTEM, "rollout", "status", f"deployment/{NAME}", "--timeout=280s")
        assert self._problem is None

    def stop(self) -> None:
        self._end.set()
        self._thread.join(300)
        super().stop()

    def _keep(self) -> None:
        try:
            while not self._end.wait(_LOOK_SECONDS):  # processes tell nobody that they are ready, or have ended
                self._look()
        except BaseException as error:
            self._problem = error
            raise

    def _look(self) -> None:
        pods = self.cluster.admin.items(self._pods, labelSelector="app.kubernetes.io/component=webhook")
        running = {replica.pod: replica for replica in self.replicas}
        for pod in pods:
            name = pod["metadata"]["name"]
            if name in running:
                self._follow(pod, running[name])
            elif "deletionTimestamp" in pod["metadata"]:
                self._forget(pod)
            elif pod["spec"].get("nodeName"):
                replica = self._replica(pod)
                replica.process.start(wait=False)
                self.replicas.append(replica)
                self._list()

    def _follow(self, pod: Object, replica: Replica) -> None:
        if "deletionTimestamp" not in pod["metadata"]:
            self._report(replica)
        elif replica.pod not in self._stopping:
            replica.process.signal(signal.SIGTERM)
            self._stopping[replica.pod] = self.is_withdrawn(replica)
        elif self._stopping[replica.pod]():
            with self.cluster.traffic.stopped():
                assert replica.process.stop() == 0, "what it had accepted it answered"
            self.replicas.remove(replica)
            self._list()
            self._forget(pod)
        else:
            self._report(replica)

    def _report(self, replica: Replica) -> None:
        ready = replica.ready()
        if self._ready.get(replica.pod) is not ready:
            self._ready[replica.pod] = ready
            condition = {"type": "Ready", "status": str(ready)}
            status = {"status": {"phase": "Running", "conditions": [condition]}}
            self.cluster.admin.patch(f"{self._pods}/{replica.pod}/status", status, STRATEGIC_PATCH)

    def _forget(self, pod: Object) -> None:
        try:
            self.cluster.admin.delete(f"{self._pods}/{pod['metadata']['name']}", gracePeriodSeconds="0")
        except ApiError as error:
            if error.status != 404:
                raise


def _asks(deployments: list[Object], replicas: int) -> bool:
    """Whether the autoscaler has raised it to its least."""
    return any(item["metadata"]["name"] == NAME and item["spec"]["replicas"] >= replicas for item in deployments)
