"""The cluster's names: CoreDNS in a pod, as clusters have it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from tests.cluster.binaries import binary
from tests.cluster.client import Object
from tests.node import images
from tests.node.cluster import NodeCluster
from tests.node.images import Image
from tests.node.node import DNS_ADDRESS, DOMAIN
from tests.node.programs import COREDNS

_NAMESPACE: Final = "kube-system"
_LABELS: Final = {"k8s-app": "kube-dns"}
_COREFILE: Final = f"""\
.:53 {{
    errors
    health :8080
    ready :8181
    kubernetes {DOMAIN} in-addr.arpa {{
        pods insecure
        ttl 2
    }}
    cache 2
}}
"""


def make_image(folder: Path) -> Image:
    return images.of_programs(
        "coredns", {"/coredns": Path(binary(COREDNS, "coredns"))}, folder / "coredns.tar", user=""
    )


def install(cluster: NodeCluster, image: Image) -> None:
    """Apply it."""
    cluster.admin.kubectl("create", "-f", "-", input=list(_objects(image)))


def _objects(image: Image) -> list[Object]:
    here: dict[str, Any] = {"name": "coredns", "namespace": _NAMESPACE}
    pod = {
        "serviceAccountName": "coredns",
        "containers": [
            {
                "name": "coredns",
                "image": image.pinned,
                "args": ["-conf", "/etc/coredns/Corefile"],
                "readinessProbe": {"httpGet": {"path": "/ready", "port": 8181}, "periodSeconds": 1},
                "volumeMounts": [{"name": "configuration", "mountPath": "/etc/coredns"}],
            }
        ],
        "volumes": [{"name": "configuration", "configMap": {"name": "coredns"}}],
    }
    reading = [
        {"apiGroups": [""], "resources": ["services", "pods", "namespaces"], "verbs": ["list", "watch"]},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
    ]
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "coredns"}
    subject = {"kind": "ServiceAccount", **here}
    ports = [{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"}]
    rbac = "rbac.authorization.k8s.io/v1"
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": here},
        {"apiVersion": rbac, "kind": "ClusterRole", "metadata": {"name": "coredns"}, "rules": reading},
        {
            "apiVersion": rbac,
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "coredns"},
            "roleRef": role,
            "subjects": [subject],
        },
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": here, "data": {"Corefile": _COREFILE}},
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": here,
            "spec": {
                "selector": {"matchLabels": _LABELS},
                "template": {"metadata": {"labels": _LABELS}, "spec": pod},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {**here, "name": "kube-dns"},
            "spec": {"clusterIP": DNS_ADDRESS, "selector": _LABELS, "ports": ports},
        },
    ]
