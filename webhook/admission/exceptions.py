"""Which violations the configuration's exceptions cover: those of a workload's pods, never those of a pod's claim.

Of a pod that is created, three things cannot be written by its author: the user whom the API server authenticated, the
controlling ownerReference that a built-in controller gives the pods it makes, and Knative's labels on such a pod
(`isolation/knative-labels` and the guard of that name keep others from setting them). An exception matches by these
alone, so only when a pod is created: an update comes from anybody.

Names are names within the namespace: an author who may create DaemonSet/node-agent there has that exception.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final

from webhook.configuration.exceptions import PolicyException
from webhook.configuration.model import Configuration
from webhook.decision import Covered
from webhook.pod.pod import Pod
from webhook.pod.workloads import knative_kind, workload_of
from webhook.request import Request, User
from webhook.rules.rule import Violation
from webhook.snapshot import Snapshot
from webhook.wellknown import (
    KNATIVE_REVISION,
    KNATIVE_SERVICE,
    KUBE_CONTROLLER_MANAGER,
    POD_TEMPLATE_HASH,
)

_DEPLOYMENT_OF_REVISION: Final = "-deployment"
# A CronJob's Jobs are named by the minute that they were scheduled for.
_SCHEDULED: Final = re.compile(r"-\d{6,11}", re.ASCII)
_MAX_NAME: Final = 63
_KEPT_BEFORE_HASH: Final = _MAX_NAME - 32


def exceptions_of_pod(request: Request, pod: Pod, snapshot: Snapshot | None) -> tuple[PolicyException, ...]:
    """The exceptions in force for a pod that is being created."""
    if not pod.configuration.exceptions or request.operation != "CREATE":
        return ()
    now = None if snapshot is None else snapshot.now
    return in_force(pod.configuration, request.namespace, workloads_of_pod(request.user, pod), now)


def in_force(
    configuration: Configuration, namespace: str, workloads: Iterable[str], now: datetime | None
) -> tuple[PolicyException, ...]:
    """Those of the workloads that have not expired; none where it is not known what time it is."""
    if not configuration.exceptions or now is None:
        return ()
    found = configuration.exceptions_of
    return tuple(each for name in workloads for each in found.get((namespace, name), ()) if each.is_in_force(now))


def split(
    violations: Sequence[Violation], exceptions: Sequence[PolicyException]
) -> tuple[tuple[Violation, ...], tuple[Covered, ...]]:
    """The violations that count, and those that an exception covers."""
    if not exceptions:
        return tuple(violations), ()
    by_rule = {rule: exception for exception in exceptions for rule in exception.rules}
    kept = tuple(each for each in violations if each.rule.id not in by_rule)
    return kept, tuple(Covered(each, by_rule[each.rule.id]) for each in violations if each.rule.id in by_rule)


def workloads_of_pod(user: User, pod: Pod) -> tuple[str, ...]:
    """The workloads, as KIND/NAME, that made the pod, by what its author cannot write; none for a bare pod."""
    owner = _controlling_owner(pod)
    workload = workload_of(owner) if owner is not None else None
    if owner is None or workload is None or not _made_by(user, workload.creator, pod.configuration):
        return ()
    kind, name = str(owner["kind"]), owner["name"]
    names = [f"{kind}/{name}"]
    if kind == "ReplicaSet" and (deployment := _without_hash(name, pod.labels.get(POD_TEMPLATE_HASH))):
        names.append(f"Deployment/{deployment}")
        service, revision = pod.labels.get(KNATIVE_SERVICE), pod.labels.get(KNATIVE_REVISION)
        if service and revision and deployment == deployment_of_revision(revision):
            names.append(f"Service/{service}")
    if kind == "Job" and (scheduled := _SCHEDULED.search(name)) and scheduled.end() == len(name):
        names.append(f"CronJob/{name[: scheduled.start()]}")
    return tuple(names)


def workloads_of_object(item: dict[str, Any]) -> tuple[str, ...]:
    """The workload that an object is, before it makes any pod: a Knative Service, or a kind with a built-in controller.

    A Pod is none. A Configuration or Revision is its Service's where Knative's controller wrote it, which the caller
    has to know: `workloads_of_revision`.
    """
    name = (item.get("metadata") or {}).get("name")
    if not isinstance(name, str) or not name:
        return ()
    if knative_kind(item) == "Service":
        return (f"Service/{name}",)
    workload = workload_of(item)
    return (f"{item['kind']}/{name}",) if workload is not None and workload.controller is not None else ()


def workloads_of_revision(item: dict[str, Any]) -> tuple[str, ...]:
    """The Service of a Configuration or Revision that Knative's controller wrote, as its label says."""
    service = ((item.get("metadata") or {}).get("labels") or {}).get(KNATIVE_SERVICE)
    return (f"Service/{service}",) if service else ()


def deployment_of_revision(revision: str) -> str:
    """The name that Knative gives a Revision's Deployment (knative.dev/pkg kmeta.ChildName)."""
    if len(revision) <= _MAX_NAME - len(_DEPLOYMENT_OF_REVISION):
        return revision + _DEPLOYMENT_OF_REVISION
    digest = hashlib.md5(revision.encode(), usedforsecurity=False).hexdigest()
    return revision[: _KEPT_BEFORE_HASH - len(_DEPLOYMENT_OF_REVISION)] + digest + _DEPLOYMENT_OF_REVISION


def _controlling_owner(pod: Pod) -> dict[str, Any] | None:
    references = pod.metadata.get("ownerReferences")
    for reference in references if isinstance(references, list) else ():
        if isinstance(reference, dict) and reference.get("controller") is True:
            return reference if isinstance(reference.get("name"), str) else None
    return None


def _made_by(user: User, creator: str | None, configuration: Configuration) -> bool:
    """Whether the owner's own controller creates the pod; without accounts of their own all act as one."""
    if creator is None:
        return False
    together = user.name == KUBE_CONTROLLER_MANAGER and user.name in configuration.identities.podControllers
    return user.name == creator or together


def _without_hash(name: str, template_hash: Any) -> str:
    """The Deployment's name of a ReplicaSet that is named after it and the hash of its template; else empty."""
    suffix = f"-{template_hash}"
    return name.removesuffix(suffix) if template_hash and name.endswith(suffix) else ""
