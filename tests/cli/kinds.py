"""A Pod, a Deployment and a StatefulSet to render, and their pods as Kubernetes' controllers make them."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from cli.support.admission import AUTHOR, Admission, Admitted
from tests.cli import rendering
from tests.manifests.rendering import MANIFESTS
from webhook.configuration.accepted_templates import AcceptedTemplates
from webhook.configuration.container_template import ContainerTemplate
from webhook.configuration.model import Configuration
from webhook.modes import Mode
from webhook.request import User
from webhook.snapshot import RuntimeClassRecord, Snapshot

Object = dict[str, Any]
VERIFIER: Final = f"registry.test/verifier@sha256:{'1' * 64}"
OPENBAO: Final = f"registry.test/openbao@sha256:{'2' * 64}"
CONFIGURATIONS: Final[dict[str, dict[str, Any]]] = {
    **rendering.CONFIGURATIONS,
    VERIFIER: {"Entrypoint": ["/usr/bin/morphisms"], "User": "65532:65532"},
    OPENBAO: {"Env": ["PATH=/bin"], "User": "100:1000"},
}
_CONTROLLERS: Final = {"Deployment": "replicaset-controller", "StatefulSet": "statefulset-controller"}
_SPEC: Final[Object] = {
    "enableServiceLinks": False,
    "serviceAccountName": "payments",
    "initContainers": [{"name": "first", "image": rendering.APP, "args": ["migrate"]}],
    "containers": [
        {
            "name": "app",
            "image": rendering.APP,
            "command": ["/app"],
            "env": [{"name": "DB", "value": "vault:~/db#password"}, {"name": "COLOUR", "value": "it's blue"}],
            "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}],
        }
    ],
    "volumes": [{"name": "scratch", "emptyDir": {}}],
}


def workload(kind: str, name: str = "payments") -> Object:
    """One to render, in namespace shop."""
    metadata = {"name": name, "namespace": "shop"}
    if kind == "Pod":
        return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": copy.deepcopy(_SPEC)}
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": copy.deepcopy(_SPEC)}
    spec: Object = {"replicas": 2, "selector": {"matchLabels": labels}, "template": template}
    if kind == "StatefulSet":
        spec["serviceName"] = "payments-replicas"
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": metadata, "spec": spec}


def key_server() -> Object:
    """The overlay's own StatefulSet, both images by digest."""
    item: Object = yaml.safe_load((MANIFESTS / "overlays" / "kms-in-guests" / "statefulset.yaml").read_text())
    for container, image in zip(item["spec"]["template"]["spec"]["containers"], (VERIFIER, OPENBAO), strict=True):
        container["image"] = image
    return item


def write_inputs(folder: Path, *items: Object) -> list[str]:
    """Write the files, and return the command's arguments for them."""
    folder.mkdir(exist_ok=True)
    arguments = rendering.write_inputs(folder)
    (folder / "service.yaml").write_text(yaml.safe_dump_all(items))
    (folder / "images.json").write_text(json.dumps(CONFIGURATIONS))
    return arguments


def made(item: Mapping[str, Any], ordinal: int = 0) -> tuple[Object, User]:
    """The pod as its controller hands it to the API server, and the user that it does so as.

    Kubernetes 1.36: pkg/controller/controller_utils.go, pkg/controller/statefulset/stateful_set_utils.go.
    """
    kind, name = item["kind"], item["metadata"]["name"]
    if kind == "Pod":
        return copy.deepcopy(dict(item)), AUTHOR
    template = copy.deepcopy(item["spec"]["template"])
    metadata, spec = template["metadata"], template["spec"]
    metadata["namespace"] = item["metadata"]["namespace"]
    owner = {"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": "u-0", "controller": True}
    if kind == "Deployment":
        metadata |= {"generateName": f"{name}-7f9c6d5b4c-", "name": f"{name}-7f9c6d5b4c-x2x4z"}
        metadata["labels"]["pod-template-hash"] = "7f9c6d5b4c"
        owner |= {"kind": "ReplicaSet", "name": f"{name}-7f9c6d5b4c"}
    else:
        own = f"{name}-{ordinal}"
        metadata |= {"generateName": f"{name}-", "name": own}
        metadata["labels"] |= {
            "apps.kubernetes.io/pod-index": str(ordinal),
            "controller-revision-hash": f"{name}-6f8d9c7b5d",
            "statefulset.kubernetes.io/pod-name": own,
        }
        spec |= {"hostname": own, "subdomain": item["spec"]["serviceName"]}
        for claim in item["spec"].get("volumeClaimTemplates") or ():
            volume = claim["metadata"]["name"]
            source = {"name": volume, "persistentVolumeClaim": {"claimName": f"{volume}-{own}"}}
            spec["volumes"] = [source, *(each for each in spec.get("volumes") or () if each["name"] != volume)]
    metadata["ownerReferences"] = [owner]
    user = User(f"system:serviceaccount:kube-system:{_CONTROLLERS[kind]}", ("system:authenticated",))
    return {"apiVersion": "v1", "kind": "Pod", **template}, user


def admitted(pod: Object, user: User) -> Admitted:
    """The pod as a cluster's webhook of a later configuration admits it, to whom the rendering's template is known."""
    namespace = pod["metadata"]["namespace"]
    return Admission(LATER, cluster_of(namespace)).pod(pod, namespace, user)


LATER: Final = Configuration.model_validate({"sidecar": {"image": "morphisms/sidecar:later"}})


def cluster_of(namespace: str) -> Snapshot:
    """A cluster that accepts the rendering's template, with this namespace in mode enforce."""
    template = ContainerTemplate.model_validate(rendering.cluster()["template"])
    return Snapshot(
        {namespace: Mode.ENFORCE},
        runtime_classes={"kata-qemu-snp": RuntimeClassRecord("kata-qemu-snp", "kata-qemu-snp")},
        templates=AcceptedTemplates({template.digest: template}),
    )
