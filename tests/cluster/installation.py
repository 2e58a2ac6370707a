"""Morphisms on the cluster: installed from manifests/ with kubectl, its replicas as processes.

The overlay differs from a user's in two places. The Service is an `ExternalName: localhost` with a port of its own,
behind which a balancer stands for kube-proxy. And the API server waits as long for an answer as it can, for on a busy
machine a process may get no turn for seconds. What a kubelet would make of the Deployment's pods is made of them here:
their own args, environment and volumes, and a token bound to the pod.
"""

from __future__ import annotations

import base64
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import urllib3
import yaml

from cli.guards import GUARDS, guard
from tests.cluster.caught_up import wait_for_roles, wait_for_webhooks
from tests.cluster.client import JSON_PATCH, Client, Credentials, Object
from tests.cluster.controlplane import ControlPlane
from tests.cluster.nodes import KATA, MANIFESTS, RUNTIME_CLASSES
from tests.cluster.policies import wait_for_policies
from tests.cluster.process import Process
from tests.support.balancer import UPDATE_SECONDS, endpoints
from tests.support.ports import free_port
from tests.support.until import until
from webhook.configuration.model import Configuration
from webhook.configuration.templates_map import template_key

SYSTEM = "morphisms-system"
NAME = "morphisms-webhook"
CALL_SECONDS = 30
"""What the API server waits for a webhook, which is the most that it can be told."""
LAME_DUCK_SECONDS = 120
"""More than this installation's endpoints ever take to update. `end` ends a lame duck once they have."""
_LEAST_LAME_DUCK_SECONDS = 2 * UPDATE_SECONDS
_KINDS = ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration")
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
            return urllib3.request("GET", self._url("readyz"), timeout=10, retries=False).status == 200
        except urllib3.exceptions.HTTPError:
            return False

    def why_not_ready(self) -> str:
        """What its readiness probe reads; empty while nothing listens."""
        try:
            return urllib3.request("GET", self._url("readyz"), timeout=10, retries=False).data.decode()
        except urllib3.exceptions.HTTPError:
            return ""

    def draining(self) -> bool:
        """Whether it says that it was told to end, or has ended."""
        return "draining" in self.why_not_ready() or not self.process.running

    def metrics(self) -> str:
        """Its metrics, as text."""
        return urllib3.request("GET", self._url("metrics"), timeout=60, retries=False).data.decode()

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
        kustomization: dict[str, Any] = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": [root],
            "patches": [
                {
                    "target": {"kind": "Service", "name": NAME},
                    "patch": yaml.safe_dump([{"op": "replace", "path": "/spec", "value": service}]),
                },
                *({"target": {"kind": kind}, "patch": yaml.safe_dump(patch)} for kind, patch in self._patient(base)),
            ],
            "replacements": [
                {
                    "source": {"kind": "Service", "name": NAME, "fieldPath": "spec.ports.0.port"},
                    "targets": [
                        {"select": {"kind": kind}, "fieldPaths": ["webhooks.*.clientConfig.service.port"]}
                        for kind in _KINDS
                    ],
                }
            ],
        }
        if base == MANIFESTS / "base":
            # The previous release has these guards among the others.
            guards = os.path.relpath(MANIFESTS / "components" / "cluster-guards", self.overlay)
            kustomization["components"] = [guards]
        (self.overlay / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))

    def _patient(self, base: Path) -> Iterator[tuple[str, list[Object]]]:
        """For each registration of a folder of manifests: the patch by which its webhooks are waited for long."""
        for item in yaml.load_all(self.cluster.kubectl("kustomize", base).out, yaml.CSafeLoader):
            if item["kind"] in _KINDS:
                yield item["kind"], _waiting(CALL_SECONDS, len(item["webhooks"]))

    def wait_for_calls(self, seconds: int) -> None:
        """Have the API server wait so long for an answer to each of its calls."""
        for item in self.registrations():
            patch = _waiting(seconds, len(item["webhooks"]))
            path = f"{_REGISTRATIONS}/{item['kind'].lower()}s/morphisms"
            self.cluster.admin.patch(path, patch, JSON_PATCH)
        wait_for_webhooks(self.cluster.admin)

    def install(self) -> None:
        """kubectl apply -k; its roles, guards and registrations are in force afterwards."""
        self.cluster.kubectl("apply", "-k", self.overlay)
        self.wait_until_in_force()

    def wait_until_in_force(self) -> None:
        """Until the API server acts by the roles, guards and registrations written so far."""
        for wait in (wait_for_roles, wait_for_policies, wait_for_webhooks):
            wait(self.cluster.admin)

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
            until(replica.draining)
            replica.process.stop()  # a second signal ends its lame duck
        self.balancer.stop()

    def end(self, replica: Replica) -> int | None:
        """Have it end as a pod does, under load: it is a lame duck until no connection comes to it any more."""
        replica.process.signal(signal.SIGTERM)
        until(self.is_withdrawn(replica))
        with self.cluster.traffic.stopped():
            return replica.process.stop()  # a second signal ends its lame duck

    def is_withdrawn(self, replica: Replica) -> Callable[[], bool]:
        """Whether a replica that was told to end has said so, and no connection can come to it after that."""
        since = time.monotonic()
        looks: list[int] = []

        def is_withdrawn() -> bool:
            now = endpoints(self._backends)
            if not looks:
                if not replica.draining() or time.monotonic() - since < _LEAST_LAME_DUCK_SECONDS:
                    return False
                looks.append(endpoints(self._backends).looks)
            # The next look may have begun before it said so.
            return now.looks >= looks[0] + 2 and replica.port not in now.ports

        return is_withdrawn

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

    def wait_for_sidecar(self) -> None:
        """Until every replica gives new pods the configured image of the sidecar: its leader sees to that by itself."""
        image = Configuration.model_validate(self.configuration()).sidecar.image
        path = f"/api/v1/namespaces/{SYSTEM}/configmaps/{NAME}-templates"

        def is_given() -> bool:
            data = self.cluster.admin.get(path).get("data") or {}
            current = data.get("current", "")
            given = f'morphisms_template_current_info{{digest="{current}"}} 1.0'
            return image in data.get(template_key(current), "") and all(
                given in replica.metrics() for replica in self.replicas
            )

        until(is_given)

    def configuration(self) -> dict[str, Any]:
        """What the ConfigMap holds."""
        held = self.cluster.admin.get(f"/api/v1/namespaces/{SYSTEM}/configmaps/{NAME}")["data"]["configuration.yaml"]
        settings: dict[str, Any] = yaml.safe_load(held)
        return settings

    def wait_until_answered(self, seconds: float = 180) -> None:
        """Until the API server's own calls succeed: it learns of the configuration a moment after it was written."""
        wait_for_webhooks(self.cluster.admin)
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
        return [sys.executable, "-m", "tests.cluster.patient"]

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


def _waiting(seconds: int, webhooks: int) -> list[Object]:
    return [
        {"op": "replace", "path": f"/webhooks/{number}/timeoutSeconds", "value": seconds} for number in range(webhooks)
    ]


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
