"""A pod with each kind of thing that can be measured, its images, and the same for one of Knative's shape."""

from __future__ import annotations

import copy
import random
from typing import Any, Final

from cli.proof.guest_requests import Host, Request, guest_requests
from measured.image import Image, digest_of, read_image
from measured.pod import Choices, measure
from measured.policy import write_policy

APP: Final = f"registry.test/app:v1@sha256:{'a' * 64}"
TOOL: Final = f"registry.test/tool@sha256:{'b' * 64}"
OTHER: Final = f"registry.test/app:v1@sha256:{'c' * 64}"

CONFIGURATIONS: Final[dict[str, dict[str, Any]]] = {
    APP: {
        "Env": ["PATH=/bin", "LANG=C"],
        "Entrypoint": ["/app"],
        "Cmd": ["serve"],
        "User": "1000",
        "WorkingDir": "/srv",
    },
    TOOL: {"Entrypoint": ["/tool"]},
    OTHER: {"Entrypoint": ["/app"]},
}
IMAGES: Final[dict[str, Image]] = {digest_of(name) or "": read_image(one) for name, one in CONFIGURATIONS.items()}

POD: Final[dict[str, Any]] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "payments-0", "namespace": "shop", "uid": "a37d6d4a-eeed-4bb4-9bad-12fde8aef03f"},
    "spec": {
        "enableServiceLinks": False,
        "securityContext": {"fsGroup": 2000, "supplementalGroups": [3000]},
        "initContainers": [
            {
                "name": "first",
                "image": TOOL,
                "command": ["sh", "-c", "cp $(FROM) $$(TO)"],
                "env": [{"name": "FROM", "value": "/settings/a"}],
                "securityContext": {"runAsUser": 1000, "runAsGroup": 1000, "capabilities": {"drop": ["ALL"]}},
                "volumeMounts": [
                    {"name": "run", "mountPath": "/run/shared"},
                    {"name": "settings", "mountPath": "/settings", "readOnly": True},
                ],
            },
            {"name": "resident", "image": TOOL, "restartPolicy": "Always", "args": ["stay"]},
        ],
        "containers": [
            {
                "name": "app",
                "image": APP,
                "env": [
                    {"name": "PLAIN", "value": "a=b c\nd"},
                    {"name": "BOTH", "value": "x-$(PLAIN)-$$(KEPT)"},
                    {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                    {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                    {"name": "LONG", "value": "it's ünïcode 💥 " * 100},
                ],
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]},
                },
                "volumeMounts": [
                    {"name": "run", "mountPath": "/run/shared", "readOnly": True},
                    {"name": "other", "mountPath": "/run/other"},
                    {"name": "scratch", "mountPath": "/scratch"},
                    {"name": "spare", "mountPath": "/spare"},
                    {"name": "settings", "mountPath": "/etc/settings"},
                ],
            },
            {"name": "second", "image": TOOL, "workingDir": "/tmp"},
        ],
        "volumes": [
            {"name": "run", "emptyDir": {"medium": "Memory"}},
            {"name": "other", "emptyDir": {"medium": "Memory"}},
            {"name": "scratch", "emptyDir": {}},
            {"name": "spare", "emptyDir": {}},
            {"name": "settings", "configMap": {"name": "settings"}},
        ],
    },
}


def pod() -> dict[str, Any]:
    """A copy that a test may change."""
    return copy.deepcopy(POD)


def policy(of: dict[str, Any] | None = None, choices: Choices | None = None) -> str:
    """The policy of a pod."""
    return write_policy(measure(pod() if of is None else of, IMAGES, choices=choices or Choices()))


def honest(of: dict[str, Any] | None = None, seed: int = 0, **host: Any) -> list[Request]:
    """A sequence that an honest host would send for a pod."""
    return guest_requests(pod() if of is None else of, CONFIGURATIONS, Host(random.Random(seed), **host))
