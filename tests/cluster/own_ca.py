"""A webhook with a CA of its own on the control plane: nothing but its Service, its account, and replicas as processes.

The account has exactly what docs/certificates.md and the webhook's view of the cluster need.
"""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import ssl
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import urllib3
import yaml
from cryptography import x509

from tests.cluster.client import Client, Object
from tests.cluster.controlplane import ControlPlane
from tests.cluster.process import Process
from tests.support.balancer import UPDATE_SECONDS
from tests.support.ports import free_port

SERVICE = "morphisms-webhook"
SECRETS = ("morphisms-webhook-ca", "morphisms-webhook-tls")
REGISTRATIONS = "/apis/admissionregistration.k8s.io/v1"
KINDS = ("mutatingwebhookconfigurations", "validatingwebhookconfigurations")
_RBAC = "rbac.authorization.k8s.io"

SECRET_RULES: list[Object] = [
    {
        "apiGroups": [""],
        "resources": ["secrets"],
        "resourceNames": list(SECRETS),
        "verbs": ["list", "watch", "patch", "create"],
    },
    {
        "apiGroups": ["coordination.k8s.io"],
        "resources": ["leases"],
        "resourceNames": ["morphisms-webhook", "morphisms-webhook-templates"],
        "verbs": ["get", "update", "create"],
    },
    {
        "apiGroups": [""],
        "resources": ["configmaps"],
        "resourceNames": ["morphisms-webhook-templates"],
        "verbs": ["list", "watch", "patch", "create"],
    },
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]},
]
CLUSTER_RULES: list[Object] = [
    {
        "apiGroups": ["admissionregistration.k8s.io"],
        "resources": list(KINDS),
        "resourceNames": ["morphisms"],
        "verbs": ["list", "watch", "patch"],
    },
    {"apiGroups": [""], "resources": ["namespaces", "nodes"], "verbs": ["list", "watch"]},
    {"apiGroups": ["node.k8s.io"], "resources": ["runtimeclasses"], "verbs": ["list", "watch"]},
]


@dataclass
class Replica:
    """One webhook process."""

    name: str
    process: Process
    port: int
    metrics_port: int

    def ready(self) -> bool:
        """Its readiness probe."""
        return self.probe()[0] == 200

    def probe(self) -> tuple[int, str]:
        """Status and text of it; 0 while nobody listens."""
        try:
            answer = urllib3.request("GET", self._url("readyz"), timeout=10, retries=False)
        except urllib3.exceptions.HTTPError:
            return 0, ""
        return answer.status, answer.data.decode()

    def metric(self, name: str) -> float | None:
        """A sample's value, by its name with labels."""
        text = urllib3.request("GET", self._url("metrics"), timeout=60, retries=False).data.decode()
        found = [line.rpartition(" ")[2] for line in text.splitlines() if line.startswith(f"{name} ")]
        return float(found[0]) if found else None

    def certificate(self) -> x509.Certificate:
        """What it serves."""
        return self.certificates(1)[0]

    def certificates(self, connections: int) -> list[x509.Certificate]:
        """What it serves on so many connections that are open at once."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        found = []
        with contextlib.ExitStack() as stack:
            for _ in range(connections):
                raw = stack.enter_context(socket.create_connection(("127.0.0.1", self.port), timeout=60))
                connection = stack.enter_context(context.wrap_socket(raw))
                found.append(x509.load_der_x509_certificate(connection.getpeercert(binary_form=True) or b""))
        return found

    def events(self) -> list[dict[str, Any]]:
        """Its log, but for a line that is being written."""
        whole = self.process.log.read_text().rpartition("\n")[0]
        return [json.loads(line) for line in whole.splitlines() if line.startswith("{")]

    def _url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.metrics_port}/{path}"


class OwnCa:
    """One installation, in a namespace of its own."""

    def __init__(self, cluster: ControlPlane, periods: dict[str, int], *, secrets: bool = True) -> None:
        self.cluster = cluster
        self.admin = cluster.admin
        self.namespace = f"hook-{uuid.uuid4().hex[:8]}"
        self.port = free_port()
        self.replicas: list[Replica] = []
        self.folder = cluster.folder / self.namespace
        self.folder.mkdir()
        (self.folder / "configuration.yaml").write_text(yaml.safe_dump({"version": 1, "certificates": periods}))
        self._backends = self.folder / "backends"
        self._backends.touch()
        balancer = [sys.executable, "-m", "tests.support.balancer", str(self.port), str(self._backends)]
        self.balancer = Process(balancer, self.folder / "balancer.log", cluster.keeper)
        self._make_objects(secrets)
        self.account = cluster.service_account(self.namespace, SERVICE)
        self.balancer.start(wait=False)

    # Replicas

    def start(
        self, name: str, *, environment: dict[str, str] | None = None, wait: bool = True, workers: int = 1
    ) -> Replica:
        """A further replica."""
        port, metrics_port = free_port(), free_port()
        command = [sys.executable, "-m", "tests.cluster.patient", "webhook", "--own-ca"]
        command += ["--config", str(self.folder / "configuration.yaml")]
        command += ["--listen", f"127.0.0.1:{port}", "--metrics-listen", f"127.0.0.1:{metrics_port}"]
        command += ["--lame-duck-seconds", str(2 * UPDATE_SECONDS), "--workers", str(workers)]
        own = {"KUBECONFIG": str(self.account.kubeconfig), "POD_NAME": name, "POD_NAMESPACE": self.namespace}
        replica = Replica(name, None, port, metrics_port)  # type: ignore[arg-type]
        replica.process = Process(
            command,
            self.folder / f"{name}.log",
            self.cluster.keeper,
            environment={**own, **(environment or {})},
            ready=replica.ready,
        )
        self.replicas.append(replica)
        self._list_backends()
        replica.process.start(wait=wait)
        return replica

    def leader(self) -> Replica | None:
        """Who holds the Lease."""
        holder = self.lease().get("spec", {}).get("holderIdentity")
        return next((replica for replica in self.replicas if replica.name == holder), None)

    def close(self) -> None:
        """Stop everything, and take away what is not in the namespace."""
        for replica in self.replicas:
            if replica.process.running:
                replica.process.kill()
        self.balancer.stop()
        for kind in KINDS:
            self.admin.request("DELETE", f"{REGISTRATIONS}/{kind}/morphisms")
        for kind in ("clusterrolebindings", "clusterroles"):
            self.admin.request("DELETE", f"/apis/{_RBAC}/v1/{kind}/{self.namespace}")
        self.admin.request("DELETE", f"/api/v1/namespaces/{self.namespace}")

    # Objects

    def lease(self) -> Object:
        path = f"/apis/coordination.k8s.io/v1/namespaces/{self.namespace}/leases/morphisms-webhook"
        return self.admin.request("GET", path).body

    def templates(self) -> dict[str, str]:
        """The data of the ConfigMap with the container templates."""
        path = f"/api/v1/namespaces/{self.namespace}/configmaps/morphisms-webhook-templates"
        return self.admin.get(path)["data"]

    def secret_path(self, name: str) -> str:
        return f"/api/v1/namespaces/{self.namespace}/secrets/{name}"

    def secret(self, name: str) -> dict[str, bytes]:
        """A Secret's data; empty when it is absent."""
        data = self.admin.request("GET", self.secret_path(name)).body.get("data") or {}
        return {key: base64.b64decode(value) for key, value in data.items()}

    def write_secret(self, name: str, **data: bytes | None) -> None:
        """Change keys of a Secret, spelled with `_` for `.`; None takes one away."""
        encoded = {
            key.replace("_", "."): None if value is None else base64.b64encode(value).decode()
            for key, value in data.items()
        }
        self.admin.patch(self.secret_path(name), {"data": encoded})

    def registration(self, kind: str) -> Object:
        return self.admin.get(f"{REGISTRATIONS}/{kind}/morphisms")

    def bundles(self) -> list[tuple[x509.Certificate, ...]]:
        """What each webhook of both configurations trusts."""
        return [
            tuple(x509.load_pem_x509_certificates(pem)) if pem else ()
            for kind in KINDS
            for webhook in self.registration(kind)["webhooks"]
            for pem in [base64.b64decode(webhook["clientConfig"].get("caBundle", ""))]
        ]

    def register(self) -> None:
        """Make both webhook configurations, without a caBundle."""
        for kind, paths in zip(KINDS, (("/mutate/pod", "/mutate/service"), ("/validate/pod",)), strict=True):
            name = "MutatingWebhookConfiguration" if kind == KINDS[0] else "ValidatingWebhookConfiguration"
            self.admin.create(
                f"{REGISTRATIONS}/{kind}",
                {
                    "apiVersion": "admissionregistration.k8s.io/v1",
                    "kind": name,
                    "metadata": {"name": "morphisms", "annotations": {"note": "stays"}},
                    "webhooks": [self._webhook(path) for path in paths],
                },
            )

    def _webhook(self, path: str) -> Object:
        resource = {"/mutate/service": (["serving.knative.dev"], ["services"])}.get(path, ([""], ["pods"]))
        return {
            "name": f"{path.strip('/').replace('/', '-')}.morphisms.dev",
            "clientConfig": {
                "service": {"namespace": self.namespace, "name": SERVICE, "port": self.port, "path": path}
            },
            "rules": [
                {"apiGroups": resource[0], "apiVersions": ["*"], "resources": resource[1], "operations": ["CREATE"]}
            ],
            "failurePolicy": "Fail",
            "timeoutSeconds": 30,
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
            "namespaceSelector": {"matchLabels": {"hook": self.namespace}},
        }

    def _make_objects(self, secrets: bool) -> None:
        self.admin.create("/api/v1/namespaces", _object("v1", "Namespace", self.namespace))
        self._make("serviceaccounts", _object("v1", "ServiceAccount", SERVICE))
        ports = [{"name": "https", "port": self.port}]
        service = {"type": "ExternalName", "externalName": "localhost", "ports": ports}
        self._make("services", {**_object("v1", "Service", SERVICE), "spec": service})
        if secrets:
            for name in SECRETS:
                self._make("secrets", _object("v1", "Secret", name))
        account = {"kind": "ServiceAccount", "name": SERVICE, "namespace": self.namespace}
        for scope, rules, root in (
            ("Role", SECRET_RULES, f"/apis/{_RBAC}/v1/namespaces/{self.namespace}"),
            ("ClusterRole", CLUSTER_RULES, f"/apis/{_RBAC}/v1"),
        ):
            plural = f"{scope.lower()}s"
            self.admin.create(f"{root}/{plural}", {**_object(f"{_RBAC}/v1", scope, self.namespace), "rules": rules})
            binding = _object(f"{_RBAC}/v1", f"{scope}Binding", self.namespace)
            reference = {"apiGroup": _RBAC, "kind": scope, "name": self.namespace}
            self.admin.create(
                f"{root}/{scope.lower()}bindings", {**binding, "roleRef": reference, "subjects": [account]}
            )

    def _make(self, resource: str, body: Object) -> None:
        self.admin.create(f"/api/v1/namespaces/{self.namespace}/{resource}", body)

    def _list_backends(self) -> None:
        lines = "".join(f"{replica.port} {replica.metrics_port}\n" for replica in self.replicas)
        new = self._backends.with_suffix(".new")
        new.write_text(lines)
        new.replace(self._backends)


@dataclass
class Load:
    """Pods asked for again and again by several clients; nothing of it is stored."""

    asked: int = 0
    failures: list[str] = field(default_factory=list)


@contextlib.contextmanager
def load(hook: OwnCa, namespace: str, clients: int = 4) -> Iterator[Load]:
    """Create pods until the end of the block, each of which must be admitted and injected."""
    result, stop, lock = Load(), threading.Event(), threading.Lock()

    def ask(client: Client) -> None:
        while not stop.is_set():
            problem = _ask(client, namespace)
            with lock:
                result.asked += 1
                if problem is not None:
                    result.failures.append(f"{time.strftime('%H:%M:%S')} {problem}")
            stop.wait(0.05)

    threads = [
        threading.Thread(target=ask, args=(hook.cluster.user(f"client-{number}", "system:masters"),), daemon=True)
        for number in range(clients)
    ]
    for thread in threads:
        thread.start()
    try:
        yield result
    finally:
        stop.set()
        for thread in threads:
            thread.join(300)


def _ask(client: Client, namespace: str) -> str | None:
    pod = {
        **_object("v1", "Pod", f"pod-{uuid.uuid4().hex[:8]}"),
        "spec": {"containers": [{"name": "app", "image": f"registry.example/app@sha256:{'a' * 64}"}]},
    }
    pod["metadata"]["annotations"] = {"morphisms.dev/inject": "true"}
    answer = client.request("POST", f"/api/v1/namespaces/{namespace}/pods", pod, query={"dryRun": "All"})
    if answer.status != 201:
        return f"{answer.status} {answer.message}"
    if "morphisms.dev/status" not in answer.body["metadata"]["annotations"]:
        return "not injected"
    return None


def _object(version: str, kind: str, name: str) -> Object:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name}}
