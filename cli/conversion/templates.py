"""Where an object has its pod, and which annotations count for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from webhook.wellknown import KNATIVE_PREFIX

_TEMPLATE: Final = ("spec", "template")
_PATHS: Final = {
    "Pod": (),
    "PodTemplate": ("template",),
    "Deployment": _TEMPLATE,
    "StatefulSet": _TEMPLATE,
    "DaemonSet": _TEMPLATE,
    "ReplicaSet": _TEMPLATE,
    "ReplicationController": _TEMPLATE,
    "Job": _TEMPLATE,
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
}
_GROUPS: Final = ("v1", "apps/", "batch/")
_KNATIVE: Final = ("Service", "Configuration")


@dataclass(frozen=True, slots=True)
class PodTemplate:
    """A pod inside an object: `metadata` of the pod first, then of what hands its annotations down to it."""

    metadata: tuple[dict[str, Any], ...]
    spec: dict[str, Any]

    @property
    def annotations(self) -> Iterator[dict[str, Any]]:
        """The annotations, those that win first."""
        for metadata in self.metadata:
            annotations = metadata.get("annotations")
            if isinstance(annotations, dict):
                yield annotations


def pod_template(object_: dict[str, Any]) -> PodTemplate | None:
    """The pod in an object, None where it has none that an injector would see. Nothing is copied."""
    version, kind = str(object_.get("apiVersion")), str(object_.get("kind"))
    knative = version.startswith(KNATIVE_PREFIX) and kind in _KNATIVE
    path = _TEMPLATE if knative else _PATHS.get(kind) if version.startswith(_GROUPS) else None
    if path is None:
        return None
    at: Any = object_
    for member in path:
        at = at.get(member) if isinstance(at, dict) else None
    if not isinstance(at, dict) or not isinstance(at.get("spec"), dict):
        return None
    # A Service hands its own annotations down (webhook/admission/mutate_service.py).
    holders = (at, object_) if knative else (at,)
    return PodTemplate(
        tuple(each["metadata"] for each in holders if isinstance(each.get("metadata"), dict)), at["spec"]
    )
