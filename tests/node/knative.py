"""Stock Knative Serving in pods: its own YAML, its components' programs in images of one layer each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from tests.cluster.binaries import KNATIVE, binary
from tests.cluster.client import Object
from tests.cluster.definitions import wait_until_established
from tests.cluster.knative import NAMESPACE, make_service
from tests.node import images
from tests.node.cluster import NodeCluster
from tests.node.images import Image
from tests.node.programs import DATA_PATH
from tests.support.until import until

COMPONENTS: Final = ("activator", "autoscaler", "controller", "webhook")
_SOURCE: Final = "ko://knative.dev/serving/cmd/"
# What needs metrics, or more nodes than one.
_LEFT_OUT: Final = {"HorizontalPodAutoscaler", "PodDisruptionBudget", "Certificate"}
# Short, so that a Service reaches zero while a test waits for it.
_SETTINGS: Final[Mapping[str, Mapping[str, str]]] = {
    "config-autoscaler": {
        "stable-window": "8s",
        "scale-to-zero-grace-period": "6s",
        "allow-zero-initial-scale": "true",
    },
    "config-deployment": {"queue-sidecar-cpu-request": "5m"},
    "config-features": {
        "kubernetes.podspec-init-containers": "enabled",
        "kubernetes.podspec-shareprocessnamespace": "enabled",
        "kubernetes.podspec-securitycontext": "enabled",
    },
}


def make_images(folder: Path) -> dict[str, Image]:
    """Images of the components and of queue-proxy, by name."""
    made = {}
    for name in (*COMPONENTS, "queue"):
        module = KNATIVE if name in ("controller", "webhook") else DATA_PATH
        archive = folder / f"knative-{name}.tar"
        made[name] = images.of_programs(f"knative/{name}", {f"/{name}": Path(binary(module, name))}, archive)
    return made


def install(cluster: NodeCluster, made: Mapping[str, Image]) -> None:
    """Apply it all: definitions first, then the rest. `wait` waits for the components."""
    admin = cluster.admin
    objects = list(_objects(KNATIVE.folder, made))
    definitions = [item for item in objects if item["kind"] == "CustomResourceDefinition"]
    others = [item for item in objects if item not in definitions]
    # The namespace before what lies in it; the images that Knative caches last, by a definition of its own.
    order = {"Namespace": 0, "Image": 2}
    others.sort(key=lambda item: order.get(item["kind"], 1))
    admin.kubectl("create", "-f", "-", input=definitions)
    wait_until_established(admin)
    admin.kubectl("create", "-f", "-", input=others)


def wait(cluster: NodeCluster, seconds: float = 600) -> None:
    """Until every component is available, and the webhook answers the API server."""
    cluster.admin.until(
        f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments",
        lambda items: len(items) >= len(COMPONENTS) and all(_is_available(item) for item in items),
        seconds=seconds,
    )
    path, dry = "/apis/serving.knative.dev/v1/namespaces/default/services", {"dryRun": "All"}
    until(lambda: cluster.admin.request("POST", path, make_service("probe"), query=dry).status == 201, seconds)


def _is_available(deployment: Object) -> bool:
    return bool(deployment.get("status", {}).get("availableReplicas"))


def _objects(folder: Path, made: Mapping[str, Image]) -> Iterator[Object]:
    for file in sorted(folder.rglob("*.yaml")):
        text = file.read_text()
        for name, image in made.items():
            text = text.replace(f"{_SOURCE}{name}", image.pinned)
        for item in yaml.load_all(text, yaml.CSafeLoader):
            if item and item["kind"] not in _LEFT_OUT:
                yield _set(item)


def _set(item: dict[str, Any]) -> Object:
    settings = _SETTINGS.get(item["metadata"]["name"]) if item["kind"] == "ConfigMap" else None
    if settings:
        item["data"] = {**item.get("data", {}), **settings}
    return item
