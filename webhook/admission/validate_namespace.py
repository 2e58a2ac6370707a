"""/validate/namespace: warns about workloads that a stricter mode would refuse or inject at their next start.

A running pod stays as it is. A Revision is immutable, and one that the stricter mode refuses fails hours later, as it
scales from zero; a Deployment fails at its next rollout or when a node is drained.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, Final

from webhook.admission.enforcement import enforce
from webhook.admission.namespace_workloads import NamespaceWorkload, workloads_in
from webhook.configuration.model import Configuration
from webhook.decision import Decision, as_warnings, rule_ids, summary
from webhook.modes import Mode, is_known_label, mode_of_label
from webhook.pod.opt_in import requests_injection
from webhook.pod.schema import validate_metadata_shape
from webhook.request import Request
from webhook.snapshot import Snapshot, WorkloadsLookup
from webhook.wellknown import MODE_LABEL

# An evaluation takes a third of a millisecond, and other requests wait for it.
_MAX_EVALUATED: Final = 1000
# kubectl shows all warnings of an answer; there are 15 at most, and each kind of line needs its share.
_MAX_FAILING, _MAX_OPTING_IN = 5, 3
_HELP: Final = "see: morphisms check --help"


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
        lines += _tightened(request, configuration, snapshot, old, new)
    return Decision("allowed", new, "mode-changed", warnings=as_warnings(lines), audit=summary(new, "allowed", ()))


def needs(request: Request, configuration: Configuration, snapshot: Snapshot, mode: Mode) -> WorkloadsLookup | None:
    """The workloads to look up, where the change tightens the namespace's mode."""
    new, old = mode_of_label(_label(request.object)), mode_of_label(_label(request.old_object))
    tightens = request.operation == "UPDATE" and new.strictness > old.strictness
    return WorkloadsLookup(request.name) if tightens else None


def _label(item: dict[str, Any] | None) -> str | None:
    if item is None:
        return None
    validate_metadata_shape(item, "object")
    label: str | None = ((item.get("metadata") or {}).get("labels") or {}).get(MODE_LABEL)
    return label


def _tightened(
    request: Request, configuration: Configuration, snapshot: Snapshot | None, old: Mode, new: Mode
) -> Iterator[str]:
    listings = None if snapshot is None else snapshot.fetched.workloads
    if snapshot is None or listings is None:
        yield f"[mode] the list of workloads that would fail is unavailable; {_HELP}"
        return
    unavailable = [f"{listing.kind}s" for listing in listings if listing.items is None]
    if unavailable:
        yield f"[mode] which {', '.join(unavailable)} would fail is not known: they could not be listed; {_HELP}"
    found = list(chain.from_iterable(workloads_in(each, request.name, configuration, snapshot) for each in listings))
    looked_at = found[:_MAX_EVALUATED]
    more = [f"{listing.kind}s" for listing in listings if not listing.is_whole]
    if more:
        yield f"[mode] there are more {', '.join(more)}, which were not looked at; {_HELP}"
    if len(found) > len(looked_at):
        yield f"[mode] {len(found) - len(looked_at)} more workloads were not looked at; {_HELP}"
    failing = [
        f"[mode] {each.title}: {rules}"
        for each in looked_at
        if (rules := _denied_rules(each, request.name, configuration, snapshot, new))
    ]
    opting_in = [f"[mode] {each.title}: opts in" for each in looked_at if _begins_to_opt_in(each, old, new)]
    if failing:
        yield (
            f"[mode] {len(failing)} of {len(looked_at)} workloads would be refused at their next start in mode"
            f" {new.value}:"
        )
        yield from _first(failing, _MAX_FAILING if opting_in else _MAX_FAILING + _MAX_OPTING_IN)
    if opting_in:
        yield f"[mode] {len(opting_in)} workloads opt in in mode {new.value}; their next pods are injected:"
        yield from _first(opting_in, _MAX_OPTING_IN if failing else _MAX_FAILING + _MAX_OPTING_IN)


def _first(lines: Sequence[str], count: int) -> list[str]:
    """The first lines, and how many others there are."""
    left = len(lines) - count
    return [*lines] if left <= 1 else [*lines[:count], f"[mode] and {left} more"]


def _denied_rules(
    workload: NamespaceWorkload, namespace: str, configuration: Configuration, snapshot: Snapshot, mode: Mode
) -> str:
    """The rules that would deny the workload's pods; empty when its pods would be admitted."""
    if workload.pod is None:
        return "cannot be read"
    violations = workload.violations(configuration, namespace, snapshot)
    decision = enforce(violations, mode, configuration, opted_in=requests_injection(workload.pod, mode))
    return "" if decision.allowed else rule_ids(decision.violations)


def _begins_to_opt_in(workload: NamespaceWorkload, old: Mode, new: Mode) -> bool:
    """Whether its next pods are injected, and were not in the old mode. In enforce every pod is, so none counts."""
    pod = workload.pod
    if pod is None or new is Mode.ENFORCE:
        return False
    return requests_injection(pod, new) and not requests_injection(pod, old)
