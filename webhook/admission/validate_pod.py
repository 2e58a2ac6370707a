"""/validate/pod: the policy. It derives everything from the final object and does not rely on the mutation."""

from __future__ import annotations

from msgspec.structs import replace

from webhook.admission.enforcement import action, enforce
from webhook.admission.exceptions import exceptions_of_pod, split
from webhook.admission.exempt import exemption
from webhook.admission.freshness import refuse_when_stale
from webhook.admission.opt_in_notes import annotation_faults, bare_references, holds_bare_references, opt_in_notes
from webhook.configuration.exceptions import PolicyException
from webhook.configuration.model import Configuration
from webhook.decision import Decision, as_warnings, rule_ids, summary, with_covered
from webhook.modes import Mode
from webhook.pod.opt_in import opts_out, requests_injection
from webhook.pod.pod import Pod
from webhook.pod.schema import validate_pod_shape
from webhook.request import Request
from webhook.rewrite import rewrite
from webhook.rewrite.template_choice import choose_template
from webhook.rules import POD
from webhook.rules.rule import Subject, Violation, evaluate
from webhook.snapshot import Snapshot


def decide(request: Request, configuration: Configuration, snapshot: Snapshot | None, mode: Mode) -> Decision:
    """Check a created pod as a whole, an updated one for new violations."""
    reason = exemption(request, configuration)
    if reason is not None or request.object is None or request.operation not in ("CREATE", "UPDATE"):
        return Decision("skipped", mode, reason or "not-created", audit=summary(mode, "skipped", ()))
    pod, is_injected = choose_template(request.object, request.namespace, configuration, snapshot)
    opted_in = requests_injection(pod, mode)
    if not opted_in and mode is Mode.ABSENT and request.operation == "CREATE":
        warnings = as_warnings((*opt_in_notes(pod, mode), *annotation_faults(pod, snapshot, request.user)))
        return Decision("allowed", mode, "does-not-ask", warnings=warnings, audit=summary(mode, "allowed", ()))
    if request.operation == "UPDATE":
        return _decide_update(request, pod, configuration, snapshot, mode)
    stale = refuse_when_stale(mode, configuration, snapshot, opted_in=opted_in)
    if stale is not None:
        return stale
    exceptions = exceptions_of_pod(request, pod, snapshot)
    found = tuple(evaluate(POD, Subject(pod, snapshot, request.user, just_rewritten=is_injected)))
    violations, covered = split(found, exceptions)
    audit = {}
    if not opted_in and mode is Mode.AUDIT and not opts_out(pod, mode):
        audit = _two_classes(violations, exceptions, pod, request, snapshot)
    decision = enforce(violations, mode, configuration, opted_in=opted_in, audit=audit)
    if decision.allowed:
        decision = replace(decision, warnings=as_warnings((*_notes(pod, mode), *decision.warnings)))
    return with_covered(decision, covered)


def _notes(pod: Pod, mode: Mode) -> tuple[str, ...]:
    """What the pod's author may expect and does not happen. A pod of mode inject that was left alone counts too."""
    if mode is Mode.INJECT and pod.injected is None and holds_bare_references(pod):
        return (f"[annotations] {bare_references(mode)}",)
    return tuple(opt_in_notes(pod, mode))


def _two_classes(
    violations: tuple[Violation, ...],
    exceptions: tuple[PolicyException, ...],
    pod: Pod,
    request: Request,
    snapshot: Snapshot | None,
) -> dict[str, str]:
    """The violations that injection would fix, and those that the author has to; only the latter decide readiness."""
    after = pod.rewritten(rewrite(pod, snapshot).result)
    remaining, _ = split(tuple(evaluate(POD, Subject(after, snapshot, request.user))), exceptions)
    left = {each.rule.id for each in remaining}
    fixed = [each for each in violations if each.rule.id not in left]
    classes = {"ready": "false" if remaining else "true"}
    if fixed:
        classes["fixed-by-injection"] = rule_ids(fixed)
    if remaining:
        classes["must-change"] = rule_ids(remaining)
        denied = [each for each in remaining if action(pod.configuration, each, Mode.ENFORCE, False) == "deny"]
        classes["would-deny"] = str(len(denied))
    return classes


def _decide_update(
    request: Request, pod: Pod, configuration: Configuration, snapshot: Snapshot | None, mode: Mode
) -> Decision:
    """Count only new violations: otherwise old pods could not lose their finalizers, and would never be deleted.

    A pod opts in when it is created, so an update that removes the annotation changes nothing.
    """
    before: tuple[Violation, ...] = ()
    old = None
    if request.old_object is not None:
        validate_pod_shape(request.old_object, "oldObject")
        old = choose_template(request.old_object, request.namespace, configuration, snapshot).pod
        if pod.template is not old.template:  # an update changes no container, so the template stays as well
            pod = Pod(pod.object, request.namespace, configuration, template=old.template)
        before = tuple(evaluate(POD, Subject(old, snapshot, request.user, old=old)))
    opted_in = requests_injection(old or pod, mode)
    if not opted_in and mode is Mode.ABSENT:
        return Decision("allowed", mode, "does-not-ask", audit=summary(mode, "allowed", ()))
    known = {(violation.rule.id, violation.field) for violation in before}
    after = evaluate(POD, Subject(pod, snapshot, request.user, old=old or pod))
    new = [violation for violation in after if (violation.rule.id, violation.field) not in known]
    return enforce(new, mode, configuration, opted_in=opted_in)
