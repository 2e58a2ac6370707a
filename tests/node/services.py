"""Knative Services of tests, as their authors write them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

from tests.cluster.client import Object

RESTRICTED: Final = {
    "runAsNonRoot": True,
    "readOnlyRootFilesystem": True,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
RESTRICTED_NAMESPACE: Final = {"pod-security.kubernetes.io/enforce": "restricted"}


def service(
    image: str,
    place: str,
    annotations: Mapping[str, str],
    *,
    env: Mapping[str, str] | None = None,
    pod: Mapping[str, Any] | None = None,
    **container: Any,
) -> Object:
    """A Service at NAMESPACE/NAME; `pod` has further members of the pod's specification."""
    namespace, _, name = place.partition("/")
    written = {"image": image, "securityContext": RESTRICTED, **container}
    written["env"] = [{"name": key, "value": value} for key, value in (env or {}).items()]
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "template": {
                "metadata": {"annotations": dict(annotations)},
                "spec": {"containers": [written], **(pod or {})},
            }
        },
    }


def digest(text: str) -> str:
    """What the application answers for a secret."""
    return hashlib.sha256(text.encode()).hexdigest()
