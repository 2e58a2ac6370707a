"""The violations in manifests: the rules are evaluated on the pods that the manifests yield, after injection."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cli.support.admission import Admission
from cli.support.manifests import Manifest
from webhook.admission.authored_fields import authored_field
from webhook.admission.enforcement import action
from webhook.admission.exceptions import in_force, split, workloads_of_object
from webhook.admission.knative_template import template_pod, validate_template_owner_shape, violations_after_injection
from webhook.admission.opt_in_notes import annotation_faults, bare_references, holds_bare_references, opt_in_notes
from webhook.configuration.exceptions import PolicyException
from webhook.configuration.model import Configuration
from webhook.errors import MalformedError
from webhook.modes import Action, Mode
from webhook.pod.opt_in import opts_out, requests_injection
from webhook.pod.pod import Pod
from webhook.pod.schema import validate_pod_shape
from webhook.pod.workloads import as_made, knative_kind, template_at, template_path, workload_of
from webhook.rewrite import rewrite
from webhook.rules import BY_ID, POD
from webhook.rules.rule import Rule, Subject, Violation, evaluate
from webhook.snapshot import Snapshot
from webhook.wellknown import LAST_APPLIED


@dataclass(frozen=True, slots=True)
class Finding:
    """One violation in one object. `field` is in the object as its author wrote it; `action` is `deny` or `record`.

    `exception` is the one of the configuration that covers it, so that it does not count.
    """

    manifest: Manifest
    rule: Rule[Any]
    action: Action
    field: str
    message: str
    exception: PolicyException | None = None


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result for one object. `exempt` says why the policy does not apply to its pods, where it does not.

    `notes` say what the author may expect and does not happen; they are no violations. `covered` are violations that
    exceptions of the configuration cover.
    """

    findings: tuple[Finding, ...]
    exempt: str = ""
    manifest: Manifest | None = None
    notes: tuple[str, ...] = ()
    covered: tuple[Finding, ...] = ()


def holds_pod(item: Any) -> bool:
    """Whether an object of any kind has a pod in it, by shape: a list `…containers` of mappings with image or name."""
    layer = [item]
    while layer:
        for each in layer:
            for key, value in each.items() if isinstance(each, dict) else ():
                if (
                    str(key).lower().endswith("containers")
                    and isinstance(value, list)
                    and any(isinstance(inner, dict) and ("image" in inner or "name" in inner) for inner in value)
                ):
                    return True
        layer = [
            inner
            for each in layer
            if isinstance(each, dict | list)
            for inner in (each.values() if isinstance(each, dict) else each)
        ]
    return False


class Checker:
    """Checks manifests as in namespaces of the mode; None: the snapshot's mode, without one enforce.

    `now` decides which exceptions are in force; None: this moment.
    """

    def __init__(
        self,
        configuration: Configuration,
        snapshot: Snapshot | None,
        mode: Mode | None = None,
        now: datetime | None = None,
    ) -> None:
        self._now = now or datetime.now(UTC)
        self._configuration = configuration
        self._snapshot = snapshot
        self._mode = mode
        self._admission = Admission(configuration, snapshot)

    def check(self, manifest: Manifest) -> CheckResult | None:
        """The result; None for an object that yields no pod. Raises MalformedError."""
        kind = knative_kind(manifest.object)
        if kind is None and workload_of(manifest.object) is None:
            return None
        item = manifest.object
        if kind == "Service":
            # Annotations on the Service's own metadata count as much as those of its template.
            item = self._admission.copied_down(item, manifest.namespace)
        pod = self._pod(item, manifest.namespace, knative=kind is not None)
        mode = self._mode_of(manifest.namespace)
        opted_in = requests_injection(pod, mode)
        notes = tuple(opt_in_notes(pod, mode))
        if holds_bare_references(pod) and mode is not Mode.ABSENT:
            notes = tuple(dict.fromkeys((*notes, f"[annotations] {bare_references(Mode.AUDIT)}")))
        if not opted_in and mode is Mode.ABSENT:
            faults = tuple(map(str, annotation_faults(pod, self._snapshot, None)))
            exempt = "the namespace has no mode and the pod does not opt in"
            return CheckResult((), exempt, manifest, (*notes, *faults))
        if opts_out(pod, mode):
            return CheckResult((), "the pod opts out", manifest, notes)

        def finding(violation: Violation, exception: PolicyException | None = None) -> Finding:
            does = action(self._configuration, violation, mode, opted_in)
            field = violation.field if kind is not None else self._field(violation, item, pod)
            return Finding(manifest, violation.rule, does, field, violation.message, exception)

        # A Configuration or Revision in a manifest is written by its author, and only claims to be a Service's.
        exceptions = in_force(self._configuration, manifest.namespace, workloads_of_object(item), self._now)
        violations, covered = split(tuple(self._violations(item, pod, knative=kind is not None)), exceptions)
        found = [finding(each) for each in violations]
        return CheckResult(
            tuple(each for each in found if each.action != "ignore"),
            "",
            manifest,
            notes,
            tuple(finding(each.violation, each.exception) for each in covered),
        )

    def _mode_of(self, namespace: str) -> Mode:
        if self._mode is not None:
            return self._mode
        return Mode.ENFORCE if self._snapshot is None else self._snapshot.mode_of(namespace)

    def _pod(self, item: dict[str, Any], namespace: str, *, knative: bool) -> Pod:
        if knative:
            validate_template_owner_shape(item)
            return template_pod(item, namespace, self._configuration)
        path = template_path(item)
        template = template_at(item, path)
        where = ".".join(("object", *path))
        if template is None:
            raise MalformedError(f"{where}: not an object")
        validate_pod_shape(template, where)
        return Pod(as_made(item, template), namespace, self._configuration)

    def _violations(self, item: dict[str, Any], pod: Pod, *, knative: bool) -> Iterator[Violation]:
        if knative:
            yield from violations_after_injection(item, pod, self._snapshot, None)
            return
        after = pod.rewritten(rewrite(pod, self._snapshot).result)
        yield from evaluate(POD, Subject(after, self._snapshot))
        if item is not pod.object:
            # It stays on the workload, which no pod inherits it from.
            yield from evaluate((BY_ID["secrets/last-applied"],), Subject(pod, source=item))

    def _field(self, violation: Violation, item: dict[str, Any], pod: Pod) -> str:
        """The field in the author's object; `last-applied-configuration` is the object's own, all else the pod's."""
        if LAST_APPLIED in violation.field or not violation.field:
            return violation.field
        prefix = "".join(f"{step}." for step in template_path(item))
        field = violation.field.removeprefix(prefix)
        return prefix + authored_field(field, rewrite(pod, self._snapshot).result, pod.object)


def not_evaluated(snapshot: Snapshot | None) -> tuple[str, ...]:
    """The ids of the rules that need a cluster; empty with a snapshot."""
    return () if snapshot is not None else tuple(rule.id for rule in POD if rule.needs_cluster)
