"""/validate/binding: binding a pod directly bypasses the scheduler, but not this check."""

from __future__ import annotations

from typing import Any

from webhook.admission.enforcement import enforce
from webhook.admission.freshness import refuse_when_stale
from webhook.configuration.model import Configuration
from webhook.decision import Decision, summary
from webhook.errors import MalformedError
from webhook.modes import Mode
from webhook.pod.opt_in import opts_out, requests_injection
from webhook.pod.pod import Pod
from webhook.pod.schema import validate_pod_shape
from webhook.request import Request
from webhook.rules import BINDING
from webhook.rules.placement import binding_target
from webhook.rules.rule import BindingSubject, Violation, evaluate
from webhook.snapshot import PodLookup, Snapshot


def decide(request: Request, configuration: Configuration, snapshot: Snapshot | None, mode: Mode) -> Decision:
    """Accept a node that suits any profile of the namespace; else check the pod, if it could be looked up."""
    if request.object is None or mode is Mode.ABSENT:
        return Decision("skipped", mode, "no-mode", audit=summary(mode, "skipped", ()))
    stale = refuse_when_stale(mode, configuration, snapshot, opted_in=False)
    if stale is not None:
        return stale
    violations = tuple(_violations(request, configuration, snapshot, None))
    pod = None
    if _is_about_the_node(violations) and snapshot is not None:
        pod = _fetched_pod(request, configuration, snapshot)
        if pod is not None:
            violations = tuple(_violations(request, configuration, snapshot, pod))
    if pod is not None and opts_out(pod, mode):
        return Decision("allowed", mode, "opted-out", audit=summary(mode, "allowed", ()))
    opted_in = pod is not None and requests_injection(pod, mode)
    stale = refuse_when_stale(mode, configuration, snapshot, opted_in=opted_in)
    if stale is not None:
        return stale
    return enforce(violations, mode, configuration, opted_in=opted_in or not _is_about_the_node(violations))


def needs(request: Request, configuration: Configuration, snapshot: Snapshot, mode: Mode) -> PodLookup | None:
    """The pod to look up, where the node alone does not decide."""
    if request.object is None or mode is Mode.ABSENT:
        return None
    if not _is_about_the_node(tuple(_violations(request, configuration, snapshot, None))):
        return None
    # The legacy `bindings` resource has the pod's name in the object only.
    metadata = request.object.get("metadata") or {}
    return PodLookup(request.namespace, request.name or str(metadata.get("name") or ""))


def _is_about_the_node(violations: tuple[Violation, ...]) -> bool:
    return any(violation.rule is binding_target.RULE for violation in violations)


def _violations(
    request: Request, configuration: Configuration, snapshot: Snapshot | None, pod: Pod | None
) -> list[Violation]:
    binding: dict[str, Any] = request.object or {}
    target = binding.get("target")
    node = target.get("name") if isinstance(target, dict) else None
    if not isinstance(node, str):
        raise MalformedError("object.target.name: missing, or not text")
    subject = BindingSubject(request.namespace, node, binding.get("metadata") or {}, configuration, snapshot, pod)
    return list(evaluate(BINDING, subject))


def _fetched_pod(request: Request, configuration: Configuration, snapshot: Snapshot) -> Pod | None:
    found = snapshot.fetched.pod
    if found is None:
        return None
    try:
        validate_pod_shape(found)
    except MalformedError:
        return None
    return Pod(found, request.namespace, configuration)
