"""The command of an author's container that takes references as environment and names none: its image's process.

Admission calls no registry, so the command has to stand in the object that is applied.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from cli.registry.process import write_process
from cli.support.admission import Admission
from cli.support.knative import containers_needing_entrypoint, pod_of_service
from measured.image import Image, digest_of
from measured.refusal import member
from webhook.pod.schema import validate_pod_shape
from webhook.pod.workloads import knative_kind, template_at, template_path


def with_commands(
    item: dict[str, Any], namespace: str, images: Mapping[str, Image], admission: Admission
) -> dict[str, Any]:
    """The object with these commands, as far as the images are known. Raises MalformedError."""
    result = deepcopy(item)
    template = template_at(result, template_path(item))
    if template is None or not isinstance(template.get("spec"), dict):
        return result
    name = str(member(item, "metadata").get("name") or "")
    for container in containers_needing_entrypoint(
        _pod(item, template, namespace, admission), namespace, admission.configuration, name
    ):
        own = template["spec"][container.group][container.position]
        image = images.get(digest_of(own.get("image")) or "")
        if image is not None:
            write_process(own, image)
    return result


def _pod(item: dict[str, Any], template: dict[str, Any], namespace: str, admission: Admission) -> dict[str, Any]:
    """As much of the pod as says which containers take references."""
    if knative_kind(item) == "Service":
        return pod_of_service(admission.copied_down(item, namespace), namespace)
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": template.get("metadata") or {}, "spec": template["spec"]}
    validate_pod_shape(pod)
    return pod
