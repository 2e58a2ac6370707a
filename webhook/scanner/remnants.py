"""Secrets in plain text that stay where no pod is made from any more: each with what removes it. Pure; keeps no value.

A Service that was corrected still has its former Revisions in etcd, a Deployment its ReplicaSets, a StatefulSet and a
DaemonSet its ControllerRevisions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from server.kubernetes.untyped import controller_of, mapping
from webhook.configuration.model import Configuration
from webhook.errors import MalformedError
from webhook.pod.container import display_name
from webhook.pod.pod import Pod
from webhook.pod.schema import validate_pod_shape
from webhook.rules import BY_ID
from webhook.rules.rule import Severity, Subject, evaluate
from webhook.scanner.finding import Finding, FindingClass, ObjectId
from webhook.scanner.kinds import CONTROLLER_REVISION
from webhook.wellknown import KNATIVE_GROUP, KNATIVE_REVISION, KNATIVE_SERVICE

REMNANT: Final = "scan/remnant"
_RULES: Final = (BY_ID["secrets/plaintext-env"], BY_ID["secrets/plaintext-fields"])
_RESERVE: Final = "reserve"


@dataclass(frozen=True, slots=True)
class Remnant:
    """A finding, the workload that it belongs to as (namespace, kind, name), and which of its versions it is in.

    The workload's present version is not a remnant: it is told for ControllerRevisions by the highest `revision`.
    """

    workload: tuple[str, str, str]
    finding: Finding
    revision: int | None = None


def remnant_of(item: dict[str, Any], configuration: Configuration) -> Remnant | None:
    """The plaintext that a former version of a workload keeps; None for any other object, and where it keeps none."""
    identity = ObjectId.of(item)
    former = _former(item, identity)
    if former is None:
        return None
    workload, path, template, revision = former
    field = _field_of_plaintext(template, identity.namespace, configuration)
    if field is None:
        return None
    name = f"{identity.kind}/{display_name(identity.name)}"
    remove = f"kubectl delete {identity.kind.lower()} -n {identity.namespace} {display_name(identity.name)}"
    message = (
        f"{name} is a former version, and still holds what looks like a secret in plain text; rotate the secret, then:"
        f" {remove}"
    )
    finding = Finding(REMNANT, Severity.HIGH, FindingClass.YOURS_TO_CHANGE, identity, f"{path}{field}", message)
    return Remnant((identity.namespace, *workload), finding, revision)


def _former(
    item: Mapping[str, Any], identity: ObjectId
) -> tuple[tuple[str, str], str, Mapping[str, Any], int | None] | None:
    """(workload, path of the template, template, version) of what may be a former version; None for what is not one."""
    metadata, spec = mapping(item.get("metadata")), mapping(item.get("spec"))
    labels = mapping(metadata.get("labels"))
    if identity.kind == "Revision" and identity.api_version.startswith(f"{KNATIVE_GROUP}/"):
        if labels.get(f"{KNATIVE_GROUP}/routingState") != _RESERVE:
            return None
        return ("Service", str(labels.get(KNATIVE_SERVICE, ""))), "", item, None
    owner = _owner(metadata)
    if owner is None:
        return None
    if identity.kind == "ReplicaSet" and owner[0] == "Deployment":
        # A Revision's own is deleted with it; one with replicas is in use.
        if KNATIVE_REVISION in labels or spec.get("replicas") != 0:
            return None
        return owner, "spec.template.", mapping(spec.get("template")), None
    if identity.kind == CONTROLLER_REVISION.kind:
        template = mapping(mapping(mapping(item.get("data")).get("spec")).get("template"))
        number = item.get("revision")
        return owner, "data.spec.template.", template, number if type(number) is int else 0
    return None


def _field_of_plaintext(template: Mapping[str, Any], namespace: str, configuration: Configuration) -> str | None:
    try:
        # A patch, as in ControllerRevisions, says more than the template.
        pod = {"metadata": template.get("metadata") or {}, "spec": template.get("spec") or {}}
        validate_pod_shape(pod)
        violations = evaluate(_RULES, Subject(Pod(pod, namespace, configuration)))
        return next((violation.field for violation in violations), None)
    except (MalformedError, RecursionError):
        return None


def _owner(metadata: Mapping[str, Any]) -> tuple[str, str] | None:
    owner = controller_of(metadata)
    return (str(owner.get("kind")), str(owner.get("name"))) if owner else None
