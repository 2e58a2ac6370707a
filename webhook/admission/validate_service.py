"""/validate/service: feedback for developers. Warnings on a pod reach only a controller; these reach `kubectl`."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from webhook.admission.enforcement import enforce
from webhook.admission.exceptions import in_force, split, workloads_of_object, workloads_of_revision
from webhook.admission.injection_notes import injection_notes
from webhook.admission.knative_template import (
    template_pod,
    validate_template_owner_shape,
    violations_after_injection,
)
from webhook.admission.mutate_service import changes
from webhook.admission.opt_in_notes import annotation_faults, opt_in_notes
from webhook.configuration.model import Configuration
from webhook.decision import Decision, as_warnings, summary, with_covered
from webhook.modes import Mode
from webhook.pod.annotations import own_annotations
from webhook.pod.opt_in import requests_injection
from webhook.pod.pod import Pod
from webhook.pod.workloads import knative_template
from webhook.request import Request
from webhook.snapshot import Snapshot
from webhook.wellknown import PREFIX


def decide(request: Request, configuration: Configuration, snapshot: Snapshot | None, mode: Mode) -> Decision:
    """Check the pods that the template describes. What Knative itself writes is recorded, never denied."""
    item = request.object
    if item is None or request.operation not in ("CREATE", "UPDATE"):
        return Decision("skipped", mode, "not-created", audit=summary(mode, "skipped", ()))
    pod = template_pod(item, request.namespace, configuration, snapshot)
    notes = as_warnings(_notes(request, pod, mode))
    opted_in = requests_injection(pod, mode)
    if mode is Mode.ABSENT and not opted_in:
        warnings = as_warnings((*notes, *annotation_faults(pod, snapshot, request.user)))
        return Decision("allowed", mode, "does-not-ask", warnings=warnings, audit=summary(mode, "allowed", ()))
    notes = as_warnings((*notes, *injection_notes(pod)))
    by_knative = request.user.name in configuration.identities.knative
    # What people write as a Configuration or Revision only claims to be a Service's.
    workloads = workloads_of_revision(item) if by_knative else workloads_of_object(item)
    violations, covered = split(
        violations_after_injection(item, pod, snapshot, request.user),
        in_force(configuration, request.namespace, workloads, None if snapshot is None else snapshot.now),
    )
    if by_knative or not _template_changes(request):
        reason = "written-by-knative" if by_knative else "template-unchanged"
        warnings = () if by_knative else as_warnings((*notes, *violations))
        audit = summary(mode, "allowed", violations)
        decision = Decision("allowed", mode, reason, warnings=warnings, audit=audit, violations=violations)
        return with_covered(decision, covered)
    decision = enforce(violations, mode, configuration, opted_in=opted_in)
    if decision.allowed:
        decision = replace(decision, warnings=as_warnings((*notes, *decision.warnings)))
    return with_covered(decision, covered)


def _template_changes(request: Request) -> bool:
    """Whether the update touches the template: traffic, labels and finalizers of an old Service stay changeable."""
    if request.operation == "CREATE" or request.old_object is None:
        return True
    validate_template_owner_shape(request.old_object, "oldObject")
    new, old = knative_template(request.object or {}) or {}, knative_template(request.old_object) or {}
    # Knative has filled its defaults into both by now, so a field that only one of them has was added or removed.
    before, after = old.get("spec"), new.get("spec")
    return (
        changes(after, before) or changes(before, after) or _given(new.get("metadata")) != _given(old.get("metadata"))
    )


def _given(metadata: Any) -> Any:
    """The metadata without members that say nothing: Go programs write `creationTimestamp: null`."""
    if not isinstance(metadata, dict):
        return metadata or {}
    return {key: _given(value) for key, value in metadata.items() if value not in (None, {}, [])}


def _notes(request: Request, pod: Pod, mode: Mode) -> list[str]:
    item = request.object or {}
    on_metadata = own_annotations((item.get("metadata") or {}).get("annotations"))
    notes = list(opt_in_notes(pod, mode))
    if "status" in on_metadata or "status" in pod.own_annotations:
        notes.append(f"[annotations] {PREFIX}status is written by the webhook; remove it")
    if item.get("kind") == "Configuration":
        notes += [
            f"[annotations] {PREFIX}{key} on a Configuration's metadata does not reach any pod;"
            " write it in spec.template.metadata.annotations"
            for key in sorted(on_metadata.keys() - pod.own_annotations.keys())
        ]
    return notes
