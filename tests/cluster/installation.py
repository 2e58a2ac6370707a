"""Morphisms on the cluster: installed from manifests/ with kubectl, its replicas as processes.

The overlay differs from a user's in one place: the Service is an `ExternalName: localhost` with a port of its own,
behind which a balancer stands for kube-proxy. What a kubelet would make of the Deployment's pods is made of them here:
their own args, environment and volumes, and a token bound to the pod.
"""

from __future__ import annotations

import base64
import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import urllib3
import yaml

from cli.guards import GUARDS, guard
from tests.cluster.client import Client, Credentials, Object
from tests.cluster.controlplane import ControlPlane
from tests.cluster.nodes import KATA, MANIFESTS, RUNTIME_CLASSES
from tests.cluster.policies import wait_for_policies
from tests.cluster.process import Process
from tests.support.balancer import UPDATE_SECONDS
from tests.support.ports import free_port
from webhook.configuration.model import Configuration

SYSTEM = "morphisms-system"
NAME = "morphisms-webhook"
LAME_DUCK_SECONDS = 2 * UPDATE_SECONDS
"""Longer than this installation's endpoints take to update. The default is made for a kubelet and kube-proxy."""
_REGISTRATIONS = "/apis/admissionregistration.k8s.io/v1"

AnyInstallation = TypeVar("AnyInstallation", bound="Installation")


@dataclass
class Replica:
    """A pod of the Deployment, run as a process. `folder` holds its mounts."""

    pod: str
    process: Process
    port: int
    metrics_port: int
    folder: Path

    def ready(self) -> bool:
        """What its readiness probe says."""
        try:
            return urllib3.request("GET", self._url("readyz"), timeout=2, retries=False).status == 200
        except urllib3.exceptions.HTTPError:
            return False

    def why_not_ready(self) -> str:
        """What its readiness probe reads; empty while nothing listens."""
        try:
            return urllib3.request("GET", self._url("readyz"), timeout=2, retries=False).data.decode()
        except urllib3.exceptions.HTTPError:
            return ""

    def draining(self) -> bool:
        """Whether its readiness probe fails."""
        return not self.ready()

    def metrics(self) -> str:
        """Its metrics, as text."""
        return urllib3.request("GET", self._url("metrics"), timeout=10, retries=False).data.decode()

    def _url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.metrics_port}/{path}"


@contextlib.contextmanager
def running(installation: AnyInstallation) -> Iterator[AnyInstallation]:
    """Install it, on a cluster that has not seen one yet, and run its replicas; they are stopped at the end."""
    installation.cluster.admin.create(RUNTIME_CLASSES, KATA)
    installation.install()
    try:
        installation.start()
        yield installation
    finally:
        installation.stop()


class Installation:
    """`install` applies the manifests, `start` runs replicas. `replicas` and `balancer` are there to be disturbed."""

    def __init__(self, cluster: ControlPlane, folder: str = "base") -> None:
        self.cluster = cluster
        self.port = free_port()
        self.replicas: list[Replica] = []
        self.folder = cluster.folder / "morphisms"
        self.folder.mkdir()
        self.overlay = self.folder / "overlay"
        self.overlay.mkdir()
        self._guards = "---\n".join(guard(name, Configuration()) for name in GUARDS)
        self._backends = self.folder / "backends"
        self._backends.touch()
        self.write_overlay(MANIFESTS / folder)
        command = [sys.executable, "-m", "tests.support.balancer", str(self.port), str(self._backends)]
        self.balancer = Process(command, self.folder / "balancer.log", cluster.keeper)

    def write_overlay(self, base: Path) -> None:
        """Lay the test's overlay over a folder of manifests."""
        root = os.path.relpath(base, self.overlay)
        service = {"type": "ExternalName", "externalName": "localhost", "ports": [{"name": "https", "port": self.port}]}
        kinds = ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration")
        kustomization: dict[str, Any] = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": [root],
            "patches": [
                {
                    "target": {"kind": "Service", "name": NAME},
                    "patch": yaml.safe_dump([{"op": "replace", "path": "/spec", "value": service}]),
                }
            ],
            "replacements": [
                {
                    "source": {"kind": "Service", "name": NAME, "fieldPath": "spec.ports.0.port"},
                    "targets": [
                        {"select": {"kind": kind}, "fieldPaths": ["webhooks.*.clientConfig.service.port"]}
                        for kind in kinds
                    ],
                }
            ],
        }
        if base == MANIFESTS / "base":
            # The previous release has these guards among the others.
            guards = os.path.relpath(MANIFESTS / "components" / "cluster-guards", self.overlay)
            kustomization["components"] = [guards]
        (self.overlay / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))

    def install(self) -> None:
        """kubectl apply -k; its guards are in force afterwards."""
        self.cluster.kubectl("apply", "-k", self.overlay)
        wait_for_policies(self.cluster.admin)

    def start(self, replicas: int = 2) -> None:
        """Run so many of the Deployment's pods, and wait until they and the balancer serve."""
        self.balancer.start(wait=False)
        path = f"/api/v1/namespaces/{SYSTEM}/pods"
        pods = self.cluster.admin.until(
            path,
            lambda pods: pods if len(pods) >= replicas else None,
            labelSelector="app.kubernetes.io/component=webhook",
        )
        for pod in sorted(pods, key=lambda pod: str(pod["metadata"]["name"]))[:replicas]:
            self.replicas.append(self._replica(pod))
        self._list()
        for replica in self.replicas:
            replica.process.start(wait=False)
        for replica in self.replicas:
            replica.process.wait_until_ready()
        self.wait_until_answered()

    def stop(self) -> None:
        """Stop all replicas, together."""
        running = [replica for replica in self.replicas if replica.process.running]
        for replica in running:
            replica.process.signal(signal.SIGTERM)
        for replica in running:
            replica.process.wait_until(replica.draining)
            replica.process.stop()  # a second signal ends its lame duck
        self.balancer.stop()

    def configure(self, settings: dict[str, Any]) -> None:
        """Change the ConfigMap, do the kubelet's part, and wait until every replica has taken it up."""
        text = yaml.safe_dump(settings)
        body = {"data": {"configuration.yaml": text}}
        self.cluster.admin.patch(f"/api/v1/namespaces/{SYSTEM}/configmaps/{NAME}", body)
        configuration = Configuration.model_validate(settings)
        self._follow(configuration)
        digest = configuration.digest
        for replica in self.replicas:
            file = replica.folder / "configuration" / "configuration.yaml"
            unfinished = file.with_suffix(".new")
            unfinished.write_text(text)
            unfinished.replace(file)
            replica.process.wait_until(partial(_has, replica, digest))

    def _follow(self, configuration: Configuration) -> None:
        """Apply what `morphisms guards --config F` writes, where that is something else than before."""
        written = "---\n".join(guard(name, configuration) for name in GUARDS)
        if written != self._guards:
            self._guards = written
            self.cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", input=written)
            wait_for_policies(self.cluster.admin)

    def configuration(self) -> dict[str, Any]:
        """What the ConfigMap holds."""
        held = self.cluster.admin.get(f"/api/v1/namespaces/{SYSTEM}/configmaps/{NAME}")["data"]["configuration.yaml"]
        settings: dict[str, Any] = yaml.safe_load(held)
        return settings

    def wait_until_answered(self, seconds: float = 60) -> None:
        """Until the API server's own calls succeed: it learns of the configuration a moment after it was written."""
        name = f"ready-{os.getpid()}"
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "probe", "annotations": {"morphisms.dev/inject": "true"}},
            "spec": {"containers": [{"name": "app", "image": "registry.example/app"}]},
        }
        admin = self.cluster.admin
        if admin.request("GET", f"/api/v1/namespaces/{name}").status == 404:
            admin.create("/api/v1/namespaces", namespace)
        admin.until(f"/api/v1/namespaces/{name}/serviceaccounts", bool)
        deadline = time.monotonic() + seconds
        while True:
            answer = admin.request("POST", f"/api/v1/namespaces/{name}/pods", pod, query={"dryRun": "All"})
            # A denial is an answer too.
            if answer.status == 201 or "denied the request" in answer.message:
                break
            if time.monotonic() > deadline:
                raise TimeoutError(f"the webhook is not reached: {answer.status} {answer.message}")
            time.sleep(0.1)

    def registrations(self) -> list[Object]:
        """Both webhook configurations, as they are now."""
        kinds = ("mutatingwebhookconfigurations", "validatingwebhookconfigurations")
        return [self.cluster.admin.get(f"{_REGISTRATIONS}/{kind}/morphisms") for kind in kinds]

    def _list(self) -> None:
        lines = "".join(f"{replica.port} {replica.metrics_port}\n" for replica in self.replicas)
        unfinished = self._backends.with_suffix(".new")
        unfinished.write_text(lines)
        unfinished.replace(self._backends)

    def _replica(self, pod: Object) -> Replica:
        name = pod["metadata"]["name"]
        folder = self.folder / name
        folder.mkdir()
        port, metrics_port = free_port(), free_port()
        container = pod["spec"]["containers"][0]
        mounts = {mount["mountPath"]: self._mount(pod, mount["name"], folder) for mount in container["volumeMounts"]}
        addresses = {
            f"{host}:{from_}": f"127.0.0.1:{to}"
            for host in ("[::]", "0.0.0.0")  # the previous release's manifests have the second
            for from_, to in ((8443, port), (9090, metrics_port))
        }
        arguments = [addresses.get(argument) or _moved(argument, mounts) for argument in container["args"]]
        arguments += self._more_arguments(pod)
        environment = {entry["name"]: _value(pod, entry) for entry in container.get("env", ())}
        environment["KUBECONFIG"] = str(self._bound(pod).kubeconfig)
        replica = Replica(name, None, port, metrics_port, folder)  # type: ignore[arg-type]
        replica.process = Process(
            [*self._program(pod), *arguments],
            self.folder / f"{name}.log",
            self.cluster.keeper,
            environment=environment,
            ready=replica.ready,
        )
        return replica

    def _bound(self, pod: Object) -> Client:
        """A client with the token that a kubelet would mount."""
        account = pod["spec"]["serviceAccountName"]
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {
                "expirationSeconds": 24 * 3600,
                "boundObjectRef": {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "name": pod["metadata"]["name"],
                    "uid": pod["metadata"]["uid"],
                },
            },
        }
        path = f"/api/v1/namespaces/{SYSTEM}/serviceaccounts/{account}/token"
        token = self.cluster.admin.create(path, request)["status"]["token"]
        folder = self.folder / pod["metadata"]["name"]
        return Client(account, self._api_url(pod), self.cluster.ca, Credentials(token=token), folder)

    def _api_url(self, _pod: Object) -> str:
        """Where that pod reaches the API server."""
        return self.cluster.url

    def _program(self, _pod: Object) -> list[str]:
        """What the pod's image starts."""
        return [sys.executable, "-m", "cli.main"]

    def _more_arguments(self, _pod: Object) -> list[str]:
        """Further arguments, for a platform that is faster than a kubelet and kube-proxy."""
        return ["--lame-duck-seconds", str(LAME_DUCK_SECONDS)]

    def _mount(self, pod: Object, name: str, folder: Path) -> Path:
        """The folder in place of a volume."""
        target = folder / name
        if target.exists():
            return target
        target.mkdir()
        volume = next(volume for volume in pod["spec"]["volumes"] if volume["name"] == name)
        path = f"/api/v1/namespaces/{SYSTEM}"
        if "configMap" in volume:
            data = self.cluster.admin.get(f"{path}/configmaps/{volume['configMap']['name']}")["data"]
            for file, text in data.items():
                (target / file).write_text(text)
        if "secret" in volume:
            data = self.cluster.admin.get(f"{path}/secrets/{volume['secret']['secretName']}")["data"]
            for file, text in data.items():
                (target / file).write_bytes(base64.b64decode(text))
        return target


def _has(replica: Replica, digest: str) -> bool:
    return digest in replica.metrics()


def _moved(argument: str, mounts: dict[str, Path]) -> str:
    for mount, folder in mounts.items():
        if argument.startswith(f"{mount}/"):
            return str(folder / argument.removeprefix(f"{mount}/"))
    return argument


def _value(pod: Object, entry: dict[str, Any]) -> str:
    if "value" in entry:
        return str(entry["value"])
    value: Any = pod
    for step in entry["valueFrom"]["fieldRef"]["fieldPath"].split("."):
        value = value[step]
    return str(value)
