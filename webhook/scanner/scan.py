"""One pass over the cluster: every workload that counts is evaluated, and its findings are gathered."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from server import logs
from server.kubernetes.errors import KubernetesError, reason_of, status_of
from server.kubernetes.untyped import controller_of
from webhook.modes import Mode
from webhook.rules.rule import Severity
from webhook.scanner.config_maps import Reference, references_of
from webhook.scanner.evaluation import Evaluator
from webhook.scanner.finding import Evaluation, Finding, FindingClass, ObjectId
from webhook.scanner.kinds import CONTROLLER_REVISION, SCANNED_KINDS, ScannedKind, counts
from webhook.scanner.lister import AbsentKindError, Lister
from webhook.scanner.never_looked_at import MAX_MAKERS, maker_of
from webhook.scanner.remnants import Remnant, remnant_of
from webhook.scanner.reports.results import WorkloadResults
from webhook.snapshot import Snapshot
from webhook.wellknown import KNATIVE_GROUP, KNATIVE_SERVICE

NOT_LISTED: Final = "scan/not-listed"
"""The id of the finding that objects of a kind could not be listed, so that a workload is not known in whole."""

# An evaluation takes most of a millisecond, and probes have to be answered meanwhile.
_AT_ONCE: Final = 10

_Key = tuple[str, str, str]
_KEEP_FORMER: Final = frozenset({"Revision", "ReplicaSet", CONTROLLER_REVISION.kind})


@dataclass(frozen=True, slots=True)
class NamespaceState:
    """How many of a namespace's workloads there are, and how many of them are ready for the target mode.

    `is_whole`: objects of every kind could be listed.
    """

    workloads: int
    ready: int
    mode: Mode
    target: Mode
    is_whole: bool

    @property
    def is_ready(self) -> bool:
        """Whether all are, and all were looked at."""
        return self.is_whole and self.workloads == self.ready


@dataclass(slots=True)
class ScanResult:
    """What a pass found. `not_listed`: the kinds that the API server did not list; `absent`: it has no such kind.

    `modes` are those of the namespaces that have one and are looked at. `config_maps`: by (namespace, name), which
    workloads take variables from it, and how. `makers`: kinds that are not looked at and make what is, one more than
    are named at most.
    """

    modes: dict[str, Mode]
    workloads: dict[_Key, WorkloadResults] = field(default_factory=dict)
    not_listed: list[str] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    objects: int = 0
    config_maps: dict[tuple[str, str], dict[_Key, set[Reference]]] = field(default_factory=dict)
    makers: set[str] = field(default_factory=set)

    def namespaces(self) -> dict[str, NamespaceState]:
        """The namespaces that have a mode, by name."""
        found: dict[str, list[WorkloadResults]] = {name: [] for name in self.modes}
        for each in self.workloads.values():
            if each.workload.namespace in found:
                found[each.workload.namespace].append(each)
        return {
            name: NamespaceState(
                len(each), sum(one.is_ready for one in each), self.modes[name], Mode.ENFORCE, not self.not_listed
            )
            for name, each in sorted(found.items())
        }

    def obstacles(self) -> dict[str, int]:
        """By rule, how many workloads of these namespaces are not ready because of it."""
        counts: Counter[str] = Counter()
        for each in self.workloads.values():
            if each.workload.namespace in self.modes:
                counts.update(each.obstacles)
        return dict(counts)


async def scan(
    lister: Lister,
    evaluator: Evaluator,
    snapshot: Snapshot,
    *,
    without: Iterable[str] = (),
    namespace: str | None = None,
) -> ScanResult:
    """Evaluate every workload, as in mode enforce where its namespace has a mode, else as it is.

    `without`: namespaces that are left out. A kind that cannot be listed leaves its workloads `not evaluated`.
    """
    left_out = frozenset(without)
    modes: dict[str, Mode] = {
        name: mode
        for name, mode in snapshot.namespaces.items()
        if mode is not Mode.ABSENT and name not in left_out and namespace in (None, name)
    }
    result = ScanResult(modes)
    remnants: list[Remnant] = []
    newest: dict[_Key, int] = {}
    for kind in (*SCANNED_KINDS, CONTROLLER_REVISION):
        try:
            async for page in lister.pages(kind, namespace):
                for number, item in enumerate(page, 1):
                    _take(item, evaluator, snapshot, result, left_out)
                    if kind is CONTROLLER_REVISION:
                        _note_newest(item, newest)
                    if item.get("kind") in _KEEP_FORMER and (found := remnant_of(item, evaluator.configuration)):
                        remnants.append(found)
                    if number % _AT_ONCE == 0:
                        await asyncio.sleep(0)
        except AbsentKindError:
            result.absent.append(kind.kind)
        except KubernetesError as error:
            logs.warning("scan_not_listed", resource=kind.resource, reason=reason_of(error), status=status_of(error))
            result.not_listed.append(kind.kind)
            _note_not_listed(kind, result)
    for remnant in remnants:
        known = result.workloads.get(remnant.workload)
        if known is not None and (remnant.revision is None or remnant.revision < newest.get(remnant.workload, 0)):
            known.add(Evaluation(known.workload, known.mode, known.target, (remnant.finding,)))
    return result


def _note_newest(item: Mapping[str, Any], newest: dict[_Key, int]) -> None:
    """Which ControllerRevision is its workload's present one."""
    metadata, revision = item.get("metadata") or {}, item.get("revision")
    owner = controller_of(metadata)
    if owner and type(revision) is int:
        key = (str(metadata.get("namespace", "")), str(owner.get("kind")), str(owner.get("name")))
        newest[key] = max(newest.get(key, 0), revision)


def _take(
    item: dict[str, Any], evaluator: Evaluator, snapshot: Snapshot, result: ScanResult, left_out: frozenset[str]
) -> None:
    result.objects += 1
    identity = ObjectId.of(item)
    if identity.namespace in left_out or not counts(item):
        return
    mode = snapshot.namespaces.get(identity.namespace, Mode.ABSENT)
    target = Mode.ABSENT if mode is Mode.ABSENT else Mode.ENFORCE
    evaluation = evaluator.evaluate(item, target=target, mode=mode)
    if evaluation is None or evaluation.exempt:
        return
    if (maker := maker_of(item)) and len(result.makers) <= MAX_MAKERS:
        result.makers.add(maker)
    workload = _workload(item, identity, result)
    _results_of(workload, evaluation, result).add(evaluation)
    for reference in references_of(item):
        users = result.config_maps.setdefault((identity.namespace, reference.config_map), {})
        users.setdefault((workload.namespace, workload.kind, workload.name), set()).add(reference)


def _workload(item: Mapping[str, Any], identity: ObjectId, result: ScanResult) -> ObjectId:
    """Whose findings an object's are: a Revision's are its Service's, where there is one."""
    if identity.api_version.startswith(f"{KNATIVE_GROUP}/") and identity.kind == "Revision":
        service = ((item.get("metadata") or {}).get("labels") or {}).get(KNATIVE_SERVICE)
        known = result.workloads.get((identity.namespace, "Service", str(service)))
        if known is not None:
            return known.workload
    return identity


def _results_of(workload: ObjectId, evaluation: Evaluation, result: ScanResult) -> WorkloadResults:
    key = (workload.namespace, workload.kind, workload.name)
    found = result.workloads.get(key)
    if found is None:
        found = result.workloads[key] = WorkloadResults(workload, evaluation.mode, evaluation.target)
    return found


def _note_not_listed(kind: ScannedKind, result: ScanResult) -> None:
    """Nothing that depends on the kind is called clean."""
    for each in _depend_on(kind, result):
        message = f"not evaluated: {kind.resource} could not be listed; the next pass tries again"
        finding = Finding(NOT_LISTED, Severity.MEDIUM, FindingClass.NOT_EVALUATED, each.workload, "", message)
        each.add(Evaluation(each.workload, each.mode, each.target, (finding,)))


def _depend_on(kind: ScannedKind, result: ScanResult) -> Iterator[WorkloadResults]:
    if kind.kind == "Revision":
        yield from (each for each in result.workloads.values() if each.workload.kind == "Service")
