"""No container of the author mounts a Kubernetes Secret: etcd stores those, and the host sees the mount."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from webhook.rules.rule import FieldMessage, Rule, Severity, Subject


def check(subject: Subject) -> Iterator[FieldMessage]:
    # Volumes that only queue-proxy mounts, such as Knative's server certificates, belong to the platform.
    mounted = {
        mount.get("name") for container in subject.pod.checked for mount in container.object.get("volumeMounts") or ()
    }
    for index, volume in enumerate(subject.pod.spec.get("volumes") or ()):
        if volume.get("name") in mounted and _holds_secret(volume):
            yield (
                f"spec.volumes[{index}]",
                "the volume comes from a Kubernetes Secret; move it to Vault and set annotation"
                " morphisms.dev/secret-NAME: PATH",
            )


def _holds_secret(volume: dict[str, Any]) -> bool:
    projected = volume.get("projected") or {}
    return volume.get("secret") is not None or any(
        source.get("secret") is not None for source in projected.get("sources") or ()
    )


RULE = Rule(
    id="secrets/kubernetes-secret-volume",
    severity=Severity.HIGH,
    summary="no volume comes from a Kubernetes Secret",
    check=check,
)
