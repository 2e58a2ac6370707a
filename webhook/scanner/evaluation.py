"""Evaluates one workload of a live cluster: the rules of admission, on its next pod as injection leaves it. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from typing import Any, Final, NamedTuple

from webhook.admission.authored_fields import authored_field
from webhook.admission.enforcement import action
from webhook.admission.exceptions import in_force, split, workloads_of_object, workloads_of_pod, workloads_of_revision
from webhook.admission.knative_template import violations_after_injection
from webhook.admission.opt_in_notes import bare_references, holds_bare_references, opt_in_notes
from webhook.configuration.exceptions import PolicyException
from webhook.configuration.model import Configuration
from webhook.errors import MalformedError
from webhook.modes import Action, Mode
from webhook.pod.opt_in import opts_out, requests_injection
from webhook.pod.pod import Pod
from webhook.pod.schema import validate_metadata_shape
from webhook.pod.workloads import knative_kind, template_path, workload_of
from webhook.request import User
from webhook.rewrite import rewrite
from webhook.rules import BY_ID, POD
from webhook.rules.rule import OF_SOURCE, Rule, Severity, Subject, Violation, evaluate
from webhook.scanner.finding import Evaluation, Finding, FindingClass, ObjectId
from webhook.scanner.made_pod import next_pod
from webhook.snapshot import Snapshot
from webhook.wellknown import LAST_APPLIED, MIRROR

UNREADABLE: Final = "scan/unreadable"
"""The id of the finding that an object cannot be read; admission refuses a pod for it."""

_LAST_APPLIED_RULE: Final = "secrets/last-applied"


class _Source(NamedTuple):
    """A workload with the pod that it makes next; `workloads` are the names by which exceptions know it."""

    item: dict[str, Any]
    pod: Pod
    user: User | None
    workloads: tuple[str, ...]
    is_knative: bool


class Evaluator:
    """Evaluates workloads by one configuration and one snapshot.

    Without a snapshot, rules that need the cluster are not evaluated, so nothing is ready.
    """

    def __init__(self, configuration: Configuration, snapshot: Snapshot | None) -> None:
        self._snapshot = snapshot
        self.configuration = configuration
        self._not_evaluated = tuple(rule for rule in POD if rule.needs_cluster) if snapshot is None else ()

    def evaluate(
        self, item: dict[str, Any], *, target: Mode = Mode.ENFORCE, mode: Mode | None = None
    ) -> Evaluation | None:
        """The evaluation of an object as the API returns it; None for a kind that makes no pods.

        `target` is the mode that is asked about. `mode` is the namespace's present one; None: the snapshot's.
        """
        identity = ObjectId.of(item)
        if knative_kind(item) is None and workload_of(item) is None:
            return None
        now = mode if mode is not None else self._mode_of(identity.namespace)
        try:
            return self._evaluate(item, identity, now, target)
        except MalformedError as error:
            return Evaluation(identity, now, target, (_unreadable(identity, str(error)),))
        except RecursionError:
            return Evaluation(identity, now, target, (_unreadable(identity, "nested too deeply to be evaluated"),))

    def _mode_of(self, namespace: str) -> Mode:
        return Mode.ABSENT if self._snapshot is None else self._snapshot.mode_of(namespace)

    def _evaluate(self, item: dict[str, Any], identity: ObjectId, mode: Mode, target: Mode) -> Evaluation:
        validate_metadata_shape(item, "object")
        if MIRROR in ((item.get("metadata") or {}).get("annotations") or {}):
            return Evaluation(identity, mode, target, exempt="the kubelet's copy of a static pod")
        source = self._source(item, identity.namespace)
        pod = source.pod
        opted_in = requests_injection(pod, target)
        notes = _notes(pod, target)
        if not opted_in and target is Mode.ABSENT:
            exempt = "the namespace has no mode and the pod does not opt in"
            return Evaluation(identity, mode, target, exempt=exempt, notes=notes)
        if opts_out(pod, target):
            return Evaluation(identity, mode, target, exempt="the pod opts out", notes=notes)
        left = self._after_injection(source)
        violations, covered = split(left, in_force(self.configuration, identity.namespace, source.workloads, self._now))
        ids = {each.rule.id for each in left}
        before = [each for each in self._before_injection(source) if each.rule.id not in ids]

        def finding(
            violation: Violation,
            kind: FindingClass = FindingClass.YOURS_TO_CHANGE,
            does: Action | None = None,
            exception: PolicyException | None = None,
        ) -> Finding:
            return Finding(
                violation.rule.id,
                violation.rule.severity,
                kind,
                identity,
                violation.field,
                violation.message,
                does or action(self.configuration, violation, target, opted_in),
                does or self._action_now(violation, pod, mode),
                exception,
            )

        findings = [
            *map(finding, violations),
            *(finding(each, FindingClass.FIXED_BY_INJECTION, "record") for each in before),
            *(finding(each, does="record") for each in self._on_the_workload(source)),
            *(_not_evaluated(rule, identity) for rule in self._not_evaluated),
        ]
        excepted = tuple(finding(each.violation, exception=each.exception) for each in covered)
        kept = tuple(each for each in findings if each.action != "ignore")
        return Evaluation(identity, mode, target, kept, excepted, notes=notes, opts_in=opted_in)

    @property
    def _now(self) -> datetime | None:
        return None if self._snapshot is None else self._snapshot.now

    def _source(self, item: dict[str, Any], namespace: str) -> _Source:
        pod, user = next_pod(item, namespace, self.configuration, self._snapshot)
        kind = knative_kind(item)
        if kind is not None:
            workloads = workloads_of_object(item) if kind == "Service" else workloads_of_revision(item)
        else:
            workloads = () if user is None else workloads_of_pod(user, pod)
        return _Source(item, pod, user, workloads, kind is not None)

    def _after_injection(self, source: _Source) -> tuple[Violation, ...]:
        """What is violated in the pod that injection yields, with fields of the object as it was written."""
        if source.is_knative:
            return violations_after_injection(source.item, source.pod, self._snapshot, None)
        after = source.pod.rewritten(rewrite(source.pod, self._snapshot).result)
        found = evaluate(POD, Subject(after, self._snapshot, source.user))
        return tuple(_authored(each, source, after) for each in found)

    def _before_injection(self, source: _Source) -> Iterator[Violation]:
        """The same of the pod as it is."""
        item = source.item if source.is_knative else None
        for each in evaluate(POD, Subject(source.pod, self._snapshot, source.user, source=item)):
            yield _authored(each, source, source.pod)

    def _on_the_workload(self, source: _Source) -> Iterator[Violation]:
        """What is on the workload itself, from which no pod inherits it, so that no pod is refused for it."""
        if not source.is_knative and template_path(source.item):
            yield from evaluate((BY_ID[_LAST_APPLIED_RULE],), Subject(source.pod, source=source.item))

    def _action_now(self, violation: Violation, pod: Pod, mode: Mode) -> Action:
        opted_in = requests_injection(pod, mode)
        if (mode is Mode.ABSENT and not opted_in) or opts_out(pod, mode):
            return "ignore"
        return action(self.configuration, violation, mode, opted_in)


def _authored(violation: Violation, source: _Source, pod: Pod) -> Violation:
    """The violation in a pod, with the field in the object that makes the pod."""
    field = violation.field
    if LAST_APPLIED in field or not field:
        return violation
    if field.startswith(OF_SOURCE):
        return replace(violation, field=field.removeprefix(OF_SOURCE))
    prefix = "".join(f"{step}." for step in template_path(source.item))
    return replace(violation, field=prefix + authored_field(field, pod.object, source.pod.object))


def _notes(pod: Pod, mode: Mode) -> tuple[str, ...]:
    notes = tuple(opt_in_notes(pod, mode))
    if holds_bare_references(pod) and mode is not Mode.ABSENT:
        notes = (*notes, f"[annotations] {bare_references(Mode.AUDIT)}")
    return tuple(dict.fromkeys(notes))


def _unreadable(identity: ObjectId, problem: str) -> Finding:
    return Finding(
        UNREADABLE, Severity.HIGH, FindingClass.NOT_EVALUATED, identity, "", f"cannot be read: {problem}", "deny"
    )


def _not_evaluated(rule: Rule[Any], identity: ObjectId) -> Finding:
    message = f"not evaluated: {rule.summary}; this needs the cluster's nodes and RuntimeClasses"
    return Finding(rule.id, rule.severity, FindingClass.NOT_EVALUATED, identity, "", message)
