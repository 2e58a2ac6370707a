"""The pod inside an object, and the annotations that apply to it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from webhook.pod.workloads import knative_kind, template_at, template_path, workload_of


@dataclass(frozen=True, slots=True)
class PodTemplate:
    """A pod inside an object, `template`: `metadata` of the pod first, then of the object that hands its own down.

    `knative`: the object is Knative's, which names the containers that its author left unnamed.
    """

    template: dict[str, Any]
    metadata: tuple[dict[str, Any], ...]
    spec: dict[str, Any]
    knative: bool

    @property
    def annotations(self) -> Iterator[dict[str, Any]]:
        """The annotations; those that take precedence come first."""
        for metadata in self.metadata:
            annotations = metadata.get("annotations")
            if isinstance(annotations, dict):
                yield annotations


def pod_template(object_: dict[str, Any]) -> PodTemplate | None:
    """The pod in an object, None where it has none that an injector would see. Nothing is copied."""
    path = _path(object_)
    template = None if path is None else template_at(object_, path)
    if template is None or not isinstance(template.get("spec"), dict):
        return None
    # A Service hands its own annotations down (webhook/admission/mutate_service.py).
    knative = knative_kind(object_) is not None
    holders = (template, object_) if knative else (template,)
    metadata = tuple(each["metadata"] for each in holders if isinstance(each.get("metadata"), dict))
    return PodTemplate(template, metadata, template["spec"], knative)


def _path(object_: dict[str, Any]) -> tuple[str, ...] | None:
    """The template's path. Knative's controller writes Revisions, so none is converted."""
    if (object_.get("apiVersion"), object_.get("kind")) == ("v1", "PodTemplate"):
        return ("template",)
    if workload_of(object_) is None and knative_kind(object_) in (None, "Revision"):
        return None
    return template_path(object_)
