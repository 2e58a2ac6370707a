"""The pod that a Service, Configuration or Revision describes, and the violations left after injecting it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from webhook.admission.authored_fields import authored_field
from webhook.configuration.model import Configuration
from webhook.pod.pod import Pod
from webhook.pod.schema import TemplateOwner, validate_pod_shape, validate_shape
from webhook.pod.workloads import knative_template
from webhook.request import User
from webhook.rewrite import rewrite
from webhook.rewrite.template_choice import with_rendered_template
from webhook.rules import POD
from webhook.rules.rule import OF_SOURCE, Subject, Violation, evaluate
from webhook.snapshot import Snapshot
from webhook.wellknown import KNATIVE_CONFIGURATION, KNATIVE_SERVICE, LAST_APPLIED


def validate_template_owner_shape(item: dict[str, Any], where: str = "object") -> None:
    """Raise MalformedError unless the object can be read as a Service, Configuration or Revision."""
    if isinstance(item, dict) and item.get("kind") == "Revision":
        validate_pod_shape(item, where)
        return
    validate_shape(item, TemplateOwner, where)
    validate_pod_shape(knative_template(item), f"{where}.spec.template")


def template_pod(
    item: dict[str, Any], namespace: str, configuration: Configuration, snapshot: Snapshot | None = None
) -> Pod:
    """The described pod, as far as the object determines it. Its shape must have been validated."""
    template: Any = knative_template(item)
    pod = {"metadata": template.get("metadata") or {}, "spec": template["spec"]}
    return with_rendered_template(pod, namespace, configuration, snapshot, _service_name(item))


def _service_name(item: dict[str, Any]) -> str:
    metadata = item.get("metadata") or {}
    labels = metadata.get("labels") or {}
    if item.get("kind") == "Service":
        return metadata.get("name") or "service"
    return labels.get(KNATIVE_SERVICE) or labels.get(KNATIVE_CONFIGURATION) or metadata.get("name") or "service"


def violations_after_injection(
    item: dict[str, Any], pod: Pod, snapshot: Snapshot | None, user: User | None
) -> tuple[Violation, ...]:
    """What `validate(mutate(pod))` finds."""
    after = pod.rewritten(rewrite(pod, snapshot).result)

    def authored(violation: Violation) -> Violation:
        if LAST_APPLIED in violation.field:
            return violation
        if violation.field.startswith(OF_SOURCE):
            return replace(violation, field=violation.field.removeprefix(OF_SOURCE))
        return replace(violation, field=prefix + authored_field(violation.field, after.object, pod.object))

    prefix = "" if item.get("kind") == "Revision" else "spec.template."
    return tuple(map(authored, evaluate(POD, Subject(after, snapshot, user, source=item))))
