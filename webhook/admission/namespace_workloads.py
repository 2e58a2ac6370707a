"""What makes pods in a namespace, as it was looked up: each workload once, with the pod that it will make next."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from server.kubernetes.untyped import condition_of, mapping
from webhook.admission.exceptions import in_force, split, workloads_of_object, workloads_of_revision
from webhook.admission.knative_template import template_pod, validate_template_owner_shape, violations_after_injection
from webhook.configuration.model import Configuration
from webhook.errors import MalformedError
from webhook.pod.container import display_name
from webhook.pod.pod import Pod
from webhook.pod.schema import validate_metadata_shape, validate_pod_shape
from webhook.pod.workloads import template_at, template_path, with_claims
from webhook.rewrite import rewrite
from webhook.rewrite.template_choice import choose_template
from webhook.rules import POD
from webhook.rules.rule import Subject, Violation, evaluate
from webhook.snapshot import LISTED_KINDS, Listing, Snapshot

_ROUTING_STATE: Final = "serving.knative.dev/routingState"
# Of a pod that runs already: the scheduler chose the node, and the kubelet keeps the others.
_OF_A_RUNNING_POD: Final = ("nodeName", "ephemeralContainers")


@dataclass(frozen=True, slots=True)
class NamespaceWorkload:
    """A workload, or a pod that nothing listed makes anew. `pod` is None where it cannot be read."""

    kind: str
    item: dict[str, Any]
    pod: Pod | None

    @property
    def title(self) -> str:
        """KIND/NAME, fit for a message."""
        metadata = self.item.get("metadata")
        name = metadata.get("name") if isinstance(metadata, dict) else ""
        return f"{self.kind}/{display_name(str(name))}"

    def violations(self, configuration: Configuration, namespace: str, snapshot: Snapshot) -> tuple[Violation, ...]:
        """What is left after injection, without what exceptions cover."""
        if self.pod is None:
            return ()
        if self.kind == "Revision":
            workloads = workloads_of_revision(self.item)
            found = violations_after_injection(self.item, self.pod, snapshot, None)
        else:
            workloads = workloads_of_object(self.item)
            pod = self.pod
            after = pod.rewritten(rewrite(pod, snapshot).result)
            found = tuple(evaluate(POD, Subject(after, snapshot)))
        return split(found, in_force(configuration, namespace, workloads, snapshot.now))[0]


def workloads_in(
    listing: Listing, namespace: str, configuration: Configuration, snapshot: Snapshot
) -> Iterator[NamespaceWorkload]:
    """The listing's workloads that will make pods, without those that another listed one makes."""
    for item in listing.items or ():
        try:
            validate_metadata_shape(item, "object")
        except MalformedError:
            continue
        if not is_looked_at(listing.kind, item):
            continue
        try:
            pod = _pod_of(listing.kind, item, namespace, configuration, snapshot)
        except MalformedError:
            pod = None
        yield NamespaceWorkload(listing.kind, item, pod)


def _pod_of(kind: str, item: dict[str, Any], namespace: str, configuration: Configuration, snapshot: Snapshot) -> Pod:
    if kind == "Revision":
        item = {**item, "kind": kind}
        validate_template_owner_shape(item)
        return template_pod(item, namespace, configuration, snapshot)
    template: dict[str, Any] = template_at(item, template_path(item)) or {}
    validate_pod_shape(template, kind)
    if kind == "Pod":
        spec = {key: value for key, value in template["spec"].items() if key not in _OF_A_RUNNING_POD}
        template = {**template, "spec": spec}
    template = with_claims(item, template)
    return choose_template(template, namespace, configuration, snapshot).pod


def is_looked_at(kind: str, item: dict[str, Any]) -> bool:
    """Whether the object will make pods, and is not itself made by another of the listed kinds."""
    metadata = item.get("metadata") or {}
    if kind == "Revision":
        return (metadata.get("labels") or {}).get(_ROUTING_STATE) != "reserve"
    return not _is_made_by_a_listed_one(metadata) and not _has_ended(kind, item.get("status"))


def _is_made_by_a_listed_one(metadata: dict[str, Any]) -> bool:
    references = metadata.get("ownerReferences")
    return any(
        isinstance(each, dict)
        and each.get("controller") is True
        and (listed := LISTED_KINDS.get(str(each.get("kind")))) is not None
        and listed[0] == each.get("apiVersion")
        for each in (references if isinstance(references, list) else ())
    )


def _has_ended(kind: str, status: Any) -> bool:
    """Whether it makes no pod any more."""
    found = mapping(status)
    if kind == "Pod":
        return found.get("phase") in ("Succeeded", "Failed")
    return kind == "Job" and any(condition_of(found, each, "True") for each in ("Complete", "Failed"))
