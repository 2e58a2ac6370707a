"""/validate/namespace: warns about Revisions that a stricter mode would refuse or inject at their next cold start.

A Revision is immutable. One that the stricter mode refuses keeps running, and fails hours later as it scales from zero.
One that opts in where the namespace gets a mode changes as late.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from webhook.admission.enforcement import enforce
from webhook.admission.knative_template import template_pod, validate_template_owner_shape, violations_after_injection
from webhook.configuration.model import Configuration
from webhook.decision import Decision, as_warnings, rule_ids, summary
from webhook.errors import MalformedError
from webhook.modes import Mode, is_known_label, mode_of_label
from webhook.pod.container import display_name
from webhook.pod.opt_in import requests_injection
from webhook.pod.pod import Pod
from webhook.pod.schema import validate_metadata_shape
from webhook.request import Request
from webhook.snapshot import RevisionsLookup, Snapshot
from webhook.wellknown import MODE_LABEL

_ROUTING_STATE = "serving.knative.dev/routingState"


def decide(request: Request, configuration: Configuration, snapshot: Snapshot | None, mode: Mode) -> Decision:
    """Warn, never deny: a ValidatingAdmissionPolicy checks the verb that loosening needs."""
    label, old_label = _label(request.object), _label(request.old_object)
    new, old = mode_of_label(label), mode_of_label(old_label)
    lines: list[str] = []
    if label is not None and not is_known_label(label):
        lines.append(
            f"[mode] this value of {MODE_LABEL} is not a mode, so the namespace counts as enforce; use audit, inject"
            " or enforce"
        )
    if new.strictness > old.strictness and request.operation == "UPDATE":
        lines += _failing_revisions(request, configuration, snapshot, new)
        lines += _revisions_that_begin_to_opt_in(request, configuration, snapshot, old, new)
    return Decision("allowed", new, "mode-changed", warnings=as_warnings(lines), audit=summary(new, "allowed", ()))


def needs(request: Request, configuration: Configuration, snapshot: Snapshot, mode: Mode) -> RevisionsLookup | None:
    """The Revisions to look up, where the change tightens the namespace's mode."""
    new, old = mode_of_label(_label(request.object)), mode_of_label(_label(request.old_object))
    tightens = request.operation == "UPDATE" and new.strictness > old.strictness
    return RevisionsLookup(request.name) if tightens else None


def _label(item: dict[str, Any] | None) -> str | None:
    if item is None:
        return None
    validate_metadata_shape(item, "object")
    label: str | None = ((item.get("metadata") or {}).get("labels") or {}).get(MODE_LABEL)
    return label


def _failing_revisions(
    request: Request, configuration: Configuration, snapshot: Snapshot | None, mode: Mode
) -> Iterator[str]:
    revisions = snapshot.fetched.revisions if snapshot is not None else None
    if revisions is None:
        yield "[mode] the list of Revisions that would fail is unavailable; see: morphisms check --help"
        return
    routable = [revision for revision in revisions if _is_routable(revision)]
    failing = []
    for revision in routable:
        rules = _denied_rules(revision, request.name, configuration, snapshot, mode)
        if rules:
            failing.append(f"[mode] {display_name(str((revision.get('metadata') or {}).get('name')))}: {rules}")
    if failing:
        yield (
            f"[mode] {len(failing)} of {len(routable)} routable Revisions would be refused at their next cold start"
            f" in mode {mode.value}:"
        )
    yield from failing


def _revisions_that_begin_to_opt_in(
    request: Request, configuration: Configuration, snapshot: Snapshot | None, old: Mode, new: Mode
) -> Iterator[str]:
    """Those whose next pods are injected, and were not in the old mode. In enforce every pod is, so none is listed."""
    revisions = (snapshot.fetched.revisions if snapshot is not None else None) or ()
    names = []
    for revision in revisions if new is not Mode.ENFORCE else ():
        if not _is_routable(revision):
            continue
        pod = _pod_of(revision, request.name, configuration)
        if pod is not None and requests_injection(pod, new) and not requests_injection(pod, old):
            names.append(f"[mode] {display_name(str((revision.get('metadata') or {}).get('name')))}: opts in")
    if names:
        yield f"[mode] {len(names)} routable Revisions opt in in mode {new.value}; their next pods are injected:"
    yield from names


def _pod_of(revision: dict[str, Any], namespace: str, configuration: Configuration) -> Pod | None:
    """The Revision's pod; None for one that cannot be read."""
    revision = {**revision, "kind": "Revision"}
    try:
        validate_template_owner_shape(revision)
    except MalformedError:
        return None
    return template_pod(revision, namespace, configuration)


def _is_routable(revision: dict[str, Any]) -> bool:
    try:
        validate_metadata_shape(revision, "object")
    except MalformedError:
        return False
    return ((revision.get("metadata") or {}).get("labels") or {}).get(_ROUTING_STATE) != "reserve"


def _denied_rules(
    revision: dict[str, Any], namespace: str, configuration: Configuration, snapshot: Snapshot | None, mode: Mode
) -> str:
    """The rules that would deny the Revision's pods; empty when its pods would be admitted."""
    revision = {**revision, "kind": "Revision"}
    pod = _pod_of(revision, namespace, configuration)
    if pod is None:
        return "cannot be read"
    violations = violations_after_injection(revision, pod, snapshot, None)
    decision = enforce(violations, mode, configuration, opted_in=requests_injection(pod, mode))
    return "" if decision.allowed else rule_ids(decision.violations)
