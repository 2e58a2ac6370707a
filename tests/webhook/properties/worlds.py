"""The clusters and configurations for generated pods, each with the facts for the oracle.

The facts are written out by hand, because code of the configuration must not compute them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from webhook.configuration.model import Configuration
from webhook.decide import decide
from webhook.decision import Decision
from webhook.modes import Mode
from webhook.request import Request, User
from webhook.review import read_review
from webhook.snapshot import Snapshot, snapshot_of_objects

NAMESPACE = "shop"
CONTROLLER = "system:serviceaccount:kube-system:replicaset-controller"
SNP_LABEL = "amd.feature.node.kubernetes.io/snp"
TRUSTED_LABEL = "morphisms.node-restriction.kubernetes.io/snp"


@dataclass(frozen=True)
class Expected:
    """One profile for the oracle: class, handler, and the node labels with values that every term must require."""

    runtime_class: str
    handler: str
    labels: dict[str, set[str]]
    evidence: list[tuple[str, str]]


_KATA = Expected("kata-qemu-snp", "kata-qemu-snp", {SNP_LABEL: {"true"}}, [("coco-aa", "http://127.0.0.1:8006")])
_PEER = Expected("kata-remote", "kata-remote", {}, [("coco-aa", "http://127.0.0.1:8006")])
_STRICT = Expected(
    "kata-strict", "kata-qemu-snp", {SNP_LABEL: {"true", "yes"}, TRUSTED_LABEL: {"true"}}, [("sev-guest", "/dev/sev")]
)


@dataclass(frozen=True, repr=False)
class World:
    """A configuration, and the same facts for the oracle."""

    name: str
    configuration: Configuration
    default_profile: str = "kata-snp"
    profiles: dict[str, Expected] = field(default_factory=lambda: {"kata-snp": _KATA})
    image: str = "morphisms/sidecar:0.1.0"
    cluster: str = "cluster"
    user: int = 65532

    def __repr__(self) -> str:
        return self.name


WORLDS = (
    World("defaults", Configuration()),
    World("replacing", Configuration(runtimeClassConflict="replace")),
    World(
        "listing",
        Configuration.model_validate({"namespaces": {NAMESPACE: {"profiles": ["peer-pod"]}, "other": {}}}),
        profiles={"kata-snp": _KATA, "peer-pod": _PEER},
    ),
    World(
        "strict",
        Configuration.model_validate(
            {
                "cluster": "prod",
                "defaultProfile": "strict",
                "profiles": [
                    {
                        "name": "strict",
                        "isolation": "pod-vm",
                        "runtimeClasses": ["kata-strict"],
                        "handlers": ["kata-qemu-snp"],
                        "nodeSelector": [{"key": SNP_LABEL, "values": ["true", "yes"]}],
                        "trustedLabel": TRUSTED_LABEL,
                        "tolerations": [{"key": "confidential", "operator": "Exists", "effect": "NoSchedule"}],
                        "evidence": [{"source": "sev-guest", "address": "/dev/sev"}],
                    }
                ],
                "sidecar": {
                    "image": "registry.example/sidecar@sha256:" + "a" * 64,
                    "imagePullSecrets": ["registry"],
                    "runAsUser": 4242,
                    "fsGroup": 4243,
                },
                "vault": {"mounts": {"secret": 2, "old": 1}, "namespace": "team"},
            }
        ),
        default_profile="strict",
        profiles={"strict": _STRICT},
        image="registry.example/sidecar@sha256:" + "a" * 64,
        cluster="prod",
        user=4242,
    ),
)


def cluster(mode: Mode) -> Snapshot:
    """A cluster whose namespace `shop` has the mode, and in which every RuntimeClass of the worlds exists."""
    labels = {} if mode is Mode.ABSENT else {"morphisms.dev/mode": mode.value}
    classes = [("kata-qemu-snp", "kata-qemu-snp"), ("kata-remote", "kata-remote"), ("kata-strict", "kata-qemu-snp")]
    return snapshot_of_objects(
        [
            {"kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}},
            {
                "kind": "RuntimeClass",
                "metadata": {"name": "gvisor"},
                "handler": "runsc",
                "scheduling": {"nodeSelector": {"sandbox/kind": "gvisor"}},
            },
            *({"kind": "RuntimeClass", "metadata": {"name": name}, "handler": handler} for name, handler in classes),
        ]
    )


CLUSTERS = {mode: cluster(mode) for mode in Mode}

worlds = st.sampled_from(WORLDS)
modes = st.sampled_from(Mode)


def review(
    pod: Any,
    path: str,
    operation: str = "CREATE",
    old: Any = None,
    *,
    namespace: str = NAMESPACE,
    user: str = CONTROLLER,
) -> bytes:
    """The AdmissionReview that an API server would send for the pod."""
    return json.dumps(
        {
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "request": {
                "uid": "00000000-0000-4000-8000-000000000001",
                "kind": {"group": "", "version": "v1", "kind": "Pod"},
                "resource": {"group": "", "version": "v1", "resource": "pods"},
                "operation": operation,
                "namespace": namespace,
                "userInfo": {"username": user, "groups": ["system:authenticated"]},
                "object": pod,
                "oldObject": old,
            },
        }
    ).encode()


def ask(pod: Any, path: str, world: World, mode: Mode, *, offline: bool = False) -> Decision:
    """The decision on the pod's creation, from bytes as in the server."""
    request = read_review(review(pod, path), path)
    if offline:
        return decide(request, world.configuration, None, offline_mode=mode)
    return decide(request, world.configuration, CLUSTERS[mode])


def pod_request(pod: Any, path: str) -> Request:
    """A request with this object itself, for laws about its identity."""
    return Request(
        uid="u",
        path=path,
        kind=("", "v1", "Pod"),
        resource=("", "v1", "pods"),
        subresource="",
        operation="CREATE",
        name="",
        namespace=NAMESPACE,
        user=User(CONTROLLER),
        object=pod,
    )
