"""All of it together, once a run: a node, stock Knative, OpenBao, the verifier and Morphisms, and Services on them."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.cluster.binaries import Report, binary
from tests.cluster.client import Client, Object
from tests.cluster.knative import NAMESPACE as KNATIVE_NAMESPACE
from tests.node import images, knative, names, programs, project_images
from tests.node.cluster import NodeCluster
from tests.node.images import Image
from tests.node.morphisms import KMS_NAMESPACE, Morphisms, make_openbao_image
from tests.node.programs import APPLICATION, PAUSE
from tests.node.sandbox import Sandbox

SERVICES: Final = (
    *("shop/payments", "desk/forgotten", "desk/many", "desk/kept"),
    *("story/everything", "story/several", "story/scaled", "story/split", "story/rotated", "story-of-root/userless"),
    *("failing/sealed", "failing/memory", "failing/killed", "failing/restarted", "failing/absent", "failing/swallowed"),
    "failing/waiting",
    *("attack/victim", "attack/second"),
    *("mesh-before/init-container", "mesh-before/cni", "mesh-after/init-container", "mesh-after/cni"),
    *("placed/scaled", "placed/waiting", "pressed/eater", "guest/volumes"),
    *("bench/init", "bench/sidecar", "bench/wrapped", "soak/init", "soak/sidecar", "soak/wrapped"),
)
"""NAMESPACE/SERVICE that the verifier knows from the start."""
PATIENCE_SECONDS: Final = 600.0
"""Ends a test that hangs; a busy machine takes long for anything."""
_ACTIVATOR_PORT: Final = 80
_PAUSE_SECONDS: Final = 0.05
_TASKS: Final = "/run/containerd/io.containerd.runtime.v2.task/k8s.io"


@dataclass(frozen=True)
class Answer:
    """What a Service answered, and after how many seconds."""

    status: int
    body: str
    seconds: float

    @property
    def content(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found


class Stack:
    """Running from `up` on. `application` is an image with a user of its own, `userless` the same without one."""

    def __init__(
        self, sandbox: Sandbox, cluster: NodeCluster, morphisms: Morphisms, application: Image, userless: Image
    ) -> None:
        self.sandbox = sandbox
        self.cluster = cluster
        self.morphisms = morphisms
        self.application = application
        self.userless = userless

    @property
    def admin(self) -> Client:
        return self.cluster.admin

    def namespace(self, name: str, labels: Mapping[str, str] | None = None) -> None:
        """Make it, and wait for its default account."""
        metadata = {"name": name, "labels": dict(labels or {})}
        self.admin.create("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        self.admin.until(f"/api/v1/namespaces/{name}/serviceaccounts", bool)

    def apply(self, service: Object) -> None:
        """kubectl apply, as an author does."""
        self.admin.kubectl("apply", "-f", "-", input=service)

    def accessors(self) -> set[str]:
        """Of all Vault tokens that live."""
        status, answer = self.morphisms.vault("LIST", "auth/token/accessors")
        assert status == 200, answer
        return set(answer["data"]["keys"])

    def tokens(self, namespace: str, service: str = "") -> int:
        """How many Vault tokens live that this Service's pods got, or those of all Services of the namespace."""
        count = 0
        for accessor in self.accessors():
            status, answer = self.morphisms.vault("POST", "auth/token/lookup-accessor", {"accessor": accessor})
            if status == 200:  # it may have ended since it was listed
                meta = answer["data"]["meta"] or {}
                count += meta.get("namespace") == namespace and service in ("", meta.get("service"))
        return count

    def pods(self, namespace: str, service: str) -> list[Object]:
        """Pods of a Knative Service."""
        label = f"serving.knative.dev/service={service}"
        return self.admin.items(f"/api/v1/namespaces/{namespace}/pods", labelSelector=label)

    def ready_pod(self, namespace: str, service: str, seconds: float = PATIENCE_SECONDS) -> Object:
        """A pod of the Service whose containers are all ready."""

        def ready(pods: list[Object]) -> Object | None:
            return next((pod for pod in pods if _has_ready_containers(pod)), None)

        label = f"serving.knative.dev/service={service}"
        path = f"/api/v1/namespaces/{namespace}/pods"
        return self.admin.until(path, ready, seconds=seconds, labelSelector=label)

    def gone(self, namespace: str, service: str, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until the Service has no pod."""
        label = f"serving.knative.dev/service={service}"
        path = f"/api/v1/namespaces/{namespace}/pods"
        self.admin.until(path, lambda pods: not pods, seconds=seconds, labelSelector=label)

    def activator(self) -> str:
        """The address of Knative's activator inside the node's network."""
        service = self.admin.get(f"/api/v1/namespaces/{KNATIVE_NAMESPACE}/services/activator-service")
        return str(service["spec"]["clusterIP"])

    def request(self, namespace: str, revision: str, seconds: float = PATIENCE_SECONDS, path: str = "/") -> Answer:
        """One request through the activator, with the headers that an ingress of Knative's adds.

        An ingress knows a Revision once the activator does, which answers 404 before.
        """
        deadline = time.monotonic() + seconds
        while (answer := self._request(namespace, revision, seconds, path)).status == 404:
            assert time.monotonic() < deadline, answer.body
            time.sleep(_PAUSE_SECONDS)
        return answer

    @contextlib.contextmanager
    def busy(self, namespace: str, revision: str) -> Iterator[None]:
        """Meanwhile one request follows another, so that the Revision keeps a pod."""
        enough = threading.Event()

        def ask() -> None:
            while not enough.is_set():
                self.request(namespace, revision, path="/?hold=500ms")

        with ThreadPoolExecutor(1) as pool:
            asking = pool.submit(ask)
            try:
                yield
            finally:
                enough.set()
            asking.result()

    def _request(self, namespace: str, revision: str, seconds: float, path: str) -> Answer:
        host = f"{revision}.{namespace}.svc.cluster.local"
        headers = {"Host": host, "Knative-Serving-Namespace": namespace, "Knative-Serving-Revision": revision}
        started = time.monotonic()
        with self.sandbox.connect(self.activator(), _ACTIVATOR_PORT) as plain:
            plain.settimeout(seconds)
            connection = http.client.HTTPConnection(host)
            connection.sock = plain
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            body = answer.read().decode(errors="replace")
            connection.close()
        return Answer(answer.status, body, time.monotonic() - started)

    @contextlib.contextmanager
    def without_verifier(self) -> Iterator[None]:
        """Packets of pods to the verifier vanish, in the node's own network alone: nothing refuses, nothing answers."""
        path = f"/api/v1/namespaces/{KMS_NAMESPACE}/pods"
        (verifier,) = self.admin.items(path, labelSelector="app.kubernetes.io/component=verifier")
        rule = ("FORWARD", "-d", str(verifier["status"]["podIP"]), "-j", "DROP")
        self.sandbox.run("iptables", "-w", "-I", *rule)
        try:
            yield
        finally:
            self.sandbox.run("iptables", "-w", "-D", *rule)

    def specifications(self) -> Iterator[tuple[Path, bytes]]:
        """(path, content) of what the runtime was told of each container on the first node."""
        for folder in sorted(self.sandbox.root(_TASKS).iterdir()):
            path = folder / "config.json"
            with contextlib.suppress(FileNotFoundError):  # a container may end meanwhile
                yield path, path.read_bytes()

    def ask(self, pod: Object, port: int = 8080) -> dict[str, Any]:
        """What the application in a container of the pod answers at the pod's own address."""
        with self.sandbox.connect(pod["status"]["podIP"], port) as plain:
            connection = http.client.HTTPConnection("pod")
            connection.sock = plain
            connection.request("GET", "/")
            found: dict[str, Any] = json.loads(connection.getresponse().read())
            connection.close()
        return found


def prepare(report: Report) -> Path:
    """Build all that is missing; the folder of the project's images."""
    programs.build(report)
    return project_images.build(report)


def up(report: Report, *, stays: bool = False) -> Stack:
    """Bring it up. When that fails, nothing is left but what the error says."""
    built = prepare(report)
    started = time.monotonic()
    sandbox = Sandbox.make(stays=stays)
    try:
        return _up(sandbox, built, report, started)
    except BaseException:
        _keep_logs(sandbox.folder)
        sandbox.remove()
        raise


def _up(sandbox: Sandbox, built: Path, report: Report, started: float) -> Stack:
    def took(what: str) -> None:
        report(f"  {what} after {time.monotonic() - started:.0f} s")

    folder = sandbox.folder / "images"
    folder.mkdir()
    pause = images.of_programs("pause", {"/pause": Path(binary(PAUSE, "pause"))}, folder / "pause.tar")
    cluster = NodeCluster(sandbox, pause)
    with ThreadPoolExecutor(1) as pool:
        starting = pool.submit(cluster.start)
        own = project_images.make_images(folder, built)
        serving = knative.make_images(folder)
        dns, openbao = names.make_image(folder), make_openbao_image(folder)
        program = Path(binary(APPLICATION, "application"))
        application = images.of_programs("application", {"/application": program}, folder / "application.tar")
        userless = images.of_programs("userless", {"/application": program}, folder / "userless.tar", user="")
        starting.result()
    took("node")
    cluster.load([pause, dns, application, userless, openbao, *serving.values(), *own.values()])
    took("images loaded")
    names.install(cluster, dns)
    knative.install(cluster, serving)
    morphisms = Morphisms(cluster, own, openbao)
    morphisms.install(SERVICES)
    knative.wait(cluster)
    took("Knative")
    morphisms.wait()
    took("Morphisms, OpenBao and verifier (evidence: simulated)")
    return Stack(sandbox, cluster, morphisms, application, userless)


@contextlib.contextmanager
def running(report: Report) -> Iterator[Stack]:
    """As `up`; whatever happens, all of it is removed."""
    stack = up(report)
    try:
        yield stack
    finally:
        stack.sandbox.remove()


def _keep_logs(folder: Path) -> None:
    """Print the ends of the programs' logs, the nodes' too, before the folder goes."""
    for log in sorted((*folder.glob("*.log"), *folder.glob("*/*.log"))):
        print(f"--- {log.relative_to(folder)}\n{log.read_text(errors='replace')[-1500:]}")


def initial_end(pod: Object) -> dict[str, Any]:
    """How morphisms-init last ended without success: exitCode, message, finishedAt, …; empty while it has not."""
    for status in pod.get("status", {}).get("initContainerStatuses", ()):
        for state in (status.get("state", {}), status.get("lastState", {})):
            if (ended := state.get("terminated")) and ended["exitCode"]:
                return dict(ended)
    return {}


def initial_message(pod: Object) -> str:
    """What morphisms-init left when it ended without success."""
    return str(initial_end(pod).get("message", ""))


def _has_ready_containers(pod: Object) -> bool:
    statuses = pod.get("status", {}).get("containerStatuses", ())
    return bool(statuses) and all(status["ready"] for status in statuses)
