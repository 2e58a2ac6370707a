"""/mutate/pod: the rewrite, by mode."""

from __future__ import annotations

from functools import lru_cache

from webhook.admission.enforcement import action, is_in_force
from webhook.admission.exceptions import exceptions_of_pod, split
from webhook.admission.exempt import exemption
from webhook.admission.freshness import refuse_when_stale
from webhook.admission.injection_notes import injection_notes
from webhook.configuration.model import Configuration
from webhook.decision import Decision, as_warnings, deny, rule_ids, summary, with_covered
from webhook.modes import Mode
from webhook.pod.opt_in import opts_out, requests_injection
from webhook.pod.pod import Pod
from webhook.request import Request
from webhook.rewrite import rewrite
from webhook.rewrite.patch import Patch, Step
from webhook.rewrite.template_choice import choose_template
from webhook.rules import NEEDED_FOR_INJECTION, POD
from webhook.rules.rule import Subject, Violation, evaluate
from webhook.snapshot import Snapshot


def decide(request: Request, configuration: Configuration, snapshot: Snapshot | None, mode: Mode) -> Decision:
    """Rewrite the pods that the mode says, unless a rule that injection needs would stay violated."""
    reason = exemption(request, configuration)
    if reason is not None or request.object is None or request.operation != "CREATE":
        return Decision("skipped", mode, reason or "not-created", audit=summary(mode, "skipped", ()))
    pod = choose_template(request.object, request.namespace, configuration, snapshot).pod
    opted_in = requests_injection(pod, mode)
    stale = refuse_when_stale(mode, configuration, snapshot, opted_in=opted_in)
    if stale is not None:
        return stale
    if not opted_in:
        if mode is Mode.ABSENT:
            return _unchanged(mode, "does-not-ask")
        if opts_out(pod, mode):
            return _unchanged(mode, "opted-out")
        if mode is Mode.AUDIT:
            return _would_mutate(pod, request, snapshot)
    patch = rewrite(pod, snapshot)
    blocked = _blocked(patch, pod, request, snapshot)
    if blocked:
        denying = [each for each in blocked if action(configuration, each, mode, opted_in) == "deny"]
        if denying:
            return deny(mode, "cannot-inject", denying)
        if mode is not Mode.ENFORCE:
            return _unchanged(mode, "cannot-inject", blocked)
    if not patch.operations:
        return _unchanged(mode, "already-injected")
    audit = summary(mode, "mutated", ()) | {"patch": patch_summary(patch)}
    # The reason is a label of metrics and logs, hence a stable word.
    reason = "asks" if opted_in else "namespace-mode"
    notes = as_warnings(injection_notes(pod))
    return Decision("mutated", mode, reason, patch.operations, patch.result, warnings=notes, audit=audit)


def _blocked(patch: Patch, pod: Pod, request: Request, snapshot: Snapshot | None) -> tuple[Violation, ...]:
    """The violations left after the rewrite that the policy in force denies."""
    subject = Subject(pod.rewritten(patch.result), snapshot, request.user, just_rewritten=True)
    found = evaluate(NEEDED_FOR_INJECTION, subject)
    return tuple(each for each in found if is_in_force(pod.configuration, each))


def _would_mutate(pod: Pod, request: Request, snapshot: Snapshot | None) -> Decision:
    """Audit mode: the patch is computed, summarised and not sent."""
    patch = rewrite(pod, snapshot)
    after = pod.rewritten(patch.result)
    violations = tuple(evaluate(POD, Subject(after, snapshot, request.user)))
    remaining, covered = split(violations, exceptions_of_pod(request, pod, snapshot))
    audit = summary(Mode.AUDIT, "unchanged", ()) | {"would-patch": patch_summary(patch)}
    if remaining:
        audit["must-change"] = rule_ids(remaining)
    return with_covered(Decision("unchanged", Mode.AUDIT, "audit", audit=audit, violations=remaining), covered)


def _unchanged(mode: Mode, reason: str, violations: tuple[Violation, ...] = ()) -> Decision:
    audit = summary(mode, "unchanged", violations) | {"reason": reason}
    return Decision("unchanged", mode, reason, audit=audit, violations=violations)


def patch_summary(patch: Patch) -> str:
    """The number of operations and the parts of the pod that they change; no value."""
    if not patch.operations:
        return "none"
    return f"{len(patch.operations)} operations on {_names(tuple(patch.parts))}"


@lru_cache(maxsize=256)
def _names(parts: tuple[tuple[Step, ...], ...]) -> str:
    return ",".join("/".join(map(str, part)) for part in parts)
