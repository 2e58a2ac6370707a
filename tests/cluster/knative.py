"""Stock Knative Serving on the control plane: its own YAML, its webhook and controller as processes.

What needs pods' network (activator, autoscaler, ingress) is left out: Services become Revisions, Deployments and pods,
and none of them ever ready.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.binaries import KNATIVE, Report, binary, only_one
from tests.cluster.caught_up import wait_for_roles
from tests.cluster.client import Client, Object
from tests.cluster.controlplane import ControlPlane
from tests.cluster.definitions import wait_until_established
from tests.cluster.namespace import Namespace
from tests.cluster.process import Process
from tests.support.ports import free_port
from tests.support.until import until

NAMESPACE = "knative-serving"
# By digest, and from a registry name that Knative asks no registry for.
ROUTING_STATE = "serving.knative.dev/routingState"
QUEUE_IMAGE = f"dev.local/queue@sha256:{'a' * 64}"
APP_IMAGE = f"dev.local/app@sha256:{'b' * 64}"
_LEFT_OUT = {"Deployment", "HorizontalPodAutoscaler", "PodDisruptionBudget", "Image", "Service", "Certificate"}
_REGISTRATIONS = ("mutatingwebhookconfigurations", "validatingwebhookconfigurations")


class Knative:
    """`webhook` and `controller` run with the ServiceAccount's token; `client` is the controller's identity."""

    def __init__(self, cluster: ControlPlane) -> None:
        self._cluster = cluster
        self._port = free_port()
        admin = cluster.admin
        objects = list(_objects(KNATIVE.folder))
        definitions = [item for item in objects if item["kind"] == "CustomResourceDefinition"]
        registrations = [item for item in objects if item["kind"].endswith("WebhookConfiguration")]
        others = [item for item in objects if item not in definitions and item not in registrations]
        admin.kubectl("create", "-f", "-", input=definitions)
        admin.kubectl("create", "-f", "-", input=[_NAMESPACE, *(o for o in others if o["kind"] != "Namespace")])
        admin.kubectl("create", "-f", "-", input=[_SERVICE, *(self._reachable(item) for item in registrations)])
        wait_until_established(admin)
        self.client: Client = cluster.service_account(NAMESPACE, "controller")
        self._wait_for_roles()
        self.webhook = self._process("webhook", WEBHOOK_NAME="webhook", WEBHOOK_PORT=str(self._port))
        self.controller = self._process("controller")

    def _wait_for_roles(self) -> None:
        """A controller puts Knative's own role together, and that of who may edit. Without its own, Knative ends."""
        admin, user = self._cluster.admin, f"edits-{uuid.uuid4().hex}"
        group = "rbac.authorization.k8s.io"
        bindings = f"/apis/{group}/v1/namespaces/default/rolebindings"
        binding = {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": {"name": user},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "edit"},
            "subjects": [{"apiGroup": group, "kind": "User", "name": user}],
        }
        admin.create(bindings, binding)
        edits = self._cluster.user(user)
        until(lambda: all(edits.can("create", each, "default", _GROUP) for each in ("services", "revisions")))
        until(lambda: self.client.can("get", "configmaps", NAMESPACE))
        until(lambda: self.client.can("update", "revisions", group=_GROUP))
        wait_for_roles(admin)
        admin.delete(f"{bindings}/{user}")

    def start(self) -> None:
        """The webhook first: it makes its certificate, and nothing is admitted before."""
        self.webhook.start()
        for kind in _REGISTRATIONS:
            self._cluster.admin.until(f"/apis/admissionregistration.k8s.io/v1/{kind}", _trusted)
        self.controller.start()
        service = make_service("probe")
        path = "/apis/serving.knative.dev/v1/namespaces/default/services"
        self.webhook.wait_until(lambda: self._cluster.admin.request("POST", path, service, query=_DRY).status == 201)

    def stop(self) -> None:
        """The controller first."""
        self.controller.stop()
        self.webhook.stop()

    def _reachable(self, registration: Object) -> Object:
        for entry in registration["webhooks"]:
            entry["clientConfig"]["service"]["port"] = self._port
        return registration

    def _process(self, name: str, **environment: str) -> Process:
        common = {
            "KUBECONFIG": str(self.client.kubeconfig),
            "POD_NAME": f"{name}-0",
            "SYSTEM_NAMESPACE": NAMESPACE,
            "CONFIG_LOGGING_NAME": "config-logging",
            "CONFIG_OBSERVABILITY_NAME": "config-observability",
            "PROFILING_PORT": str(free_port()),
        }
        log = self._cluster.folder / f"knative-{name}.log"
        # The webhook goes on serving for a while after SIGTERM, for nobody here.
        return Process(
            [binary(KNATIVE, name)],
            log,
            self._cluster.keeper,
            environment={**self._cluster.place.environment, **common, **environment},
            stop_seconds=2,
        )


@contextlib.contextmanager
def alone(report: Report) -> Iterator[None]:
    """Hold the machine's one place for a Knative controller, whose health port is fixed at 8080."""
    with only_one(KNATIVE.folder.parent / "controller.lock", "Knative's controller runs for other tests", report):
        yield


def make_service(
    name: str,
    here: Namespace | None = None,
    *,
    annotations: dict[str, str] | None = None,
    env: dict[str, str] | None = None,
    **template: Any,
) -> Object:
    """A Knative Service; `annotations` go on its template, further members of the container by keyword.

    It carries one default that Knative fills in at creation only: where it is left out, a replace makes a Revision,
    with or without us.
    """
    container: dict[str, Any] = {"image": APP_IMAGE, **template}
    if env:
        container["env"] = [{"name": key, "value": value} for key, value in env.items()]
    made: Object = {"spec": {"containers": [container], "enableServiceLinks": False}}
    if annotations:
        made["metadata"] = {"annotations": annotations}
    metadata = {"name": name} if here is None else {"name": name, "namespace": here.name}
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {"template": made},
    }


def settled(here: Namespace, name: str) -> Object:
    """The Service, once Knative has seen its last change through to the Configuration and its newest Revision."""

    def seen(items: list[Object]) -> Object | None:
        return next((item for item in items if item["metadata"]["name"] == name and _is_seen(item)), None)

    service = here.admin.until(here.services(), seen)
    here.admin.until(here.path("configurations", group="serving.knative.dev/v1"), seen)
    return service


def pod_of(here: Namespace, revision: str, *, besides: Collection[str] = (), bound: bool = True) -> Object:
    """A pod of that Revision (or of the Service's first), once it has a node; never one whose uid is in `besides`."""
    label = "serving.knative.dev/revision"

    def there(pods: list[Object]) -> Object | None:
        fitting = (pod for pod in pods if pod["metadata"]["labels"].get(label) in (revision, f"{revision}-00001"))
        new = (pod for pod in fitting if pod["metadata"]["uid"] not in besides)
        return next((pod for pod in new if pod["spec"].get("nodeName") or not bound), None)

    return here.admin.until(here.pods(), there)


def from_zero(knative: Knative, here: Namespace, revision: str) -> Object:
    """Scale a Revision to zero and back, as Knative's autoscaler does by this account; its new pod."""
    before = pod_of(here, revision)
    scale = here.deployments(f"{revision}-deployment/scale")
    knative.client.patch(scale, {"spec": {"replicas": 0}})
    here.admin.delete(here.pods(before["metadata"]["name"]), gracePeriodSeconds="0")
    knative.client.patch(scale, {"spec": {"replicas": 1}})
    return pod_of(here, revision, besides={before["metadata"]["uid"]})


def routed(here: Namespace, *names: str) -> None:
    """Return when Knative has said that these Revisions get traffic, as each does that is not kept in reserve."""

    def are(items: list[Object]) -> bool:
        states = {each["metadata"]["name"]: each["metadata"]["labels"].get(ROUTING_STATE) for each in items}
        return all(states.get(name) == "active" for name in names)

    here.admin.until(here.revisions(), are)


def revisions(here: Namespace) -> list[str]:
    """Names of the Revisions that there are, in order."""
    return sorted(item["metadata"]["name"] for item in here.admin.items(here.revisions()))


def _is_seen(item: Object) -> bool:
    status = item.get("status", {})
    return status.get("observedGeneration") == item["metadata"]["generation"] and "latestCreatedRevisionName" in status


_DRY = {"dryRun": "All"}
_GROUP = "serving.knative.dev"
_NAMESPACE = {
    "apiVersion": "v1",
    "kind": "Namespace",
    "metadata": {"name": NAMESPACE, "labels": {"app.kubernetes.io/name": NAMESPACE}},
}
# A Service of this type is what lets the API server find a webhook on loopback.
_SERVICE = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "webhook", "namespace": NAMESPACE},
    "spec": {"type": "ExternalName", "externalName": "localhost"},
}


def _objects(folder: Path) -> Iterator[Object]:
    for file in sorted(folder.rglob("*.yaml")):
        text = file.read_text().replace("ko://knative.dev/serving/cmd/queue", QUEUE_IMAGE)
        for item in yaml.load_all(text, yaml.CSafeLoader):
            if item and item["kind"] not in _LEFT_OUT:
                yield item


def _trusted(registrations: list[Object]) -> bool:
    ours = [item for item in registrations if "knative" in item["metadata"]["name"]]
    entries = [entry for item in ours for entry in item["webhooks"]]
    return bool(entries) and all(entry["clientConfig"].get("caBundle") and entry.get("rules") for entry in entries)
