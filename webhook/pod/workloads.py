"""Where each kind of Kubernetes and Knative keeps the template of its pods, and which controller creates them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from webhook.wellknown import KNATIVE_GROUP


@dataclass(frozen=True, slots=True)
class Workload:
    """A kind that pods come from: the path of the template inside it, and the controller's service account.

    A Pod is its own template, and the user who applies it creates it (`controller` None).
    """

    template: tuple[str, ...]
    controller: str | None = None

    @property
    def creator(self) -> str | None:
        """The user name under which the controller creates pods."""
        return self.controller and f"system:serviceaccount:kube-system:{self.controller}"


_TEMPLATE: Final = ("spec", "template")
_WORKLOADS: Final = {
    ("", "Pod"): Workload(()),
    ("", "ReplicationController"): Workload(_TEMPLATE, "replication-controller"),
    ("apps", "Deployment"): Workload(_TEMPLATE, "replicaset-controller"),
    ("apps", "ReplicaSet"): Workload(_TEMPLATE, "replicaset-controller"),
    ("apps", "StatefulSet"): Workload(_TEMPLATE, "statefulset-controller"),
    ("apps", "DaemonSet"): Workload(_TEMPLATE, "daemon-set-controller"),
    ("batch", "Job"): Workload(_TEMPLATE, "job-controller"),
    ("batch", "CronJob"): Workload(("spec", "jobTemplate", *_TEMPLATE), "job-controller"),
}
_KNATIVE: Final = {"Service": _TEMPLATE, "Configuration": _TEMPLATE, "Revision": ()}


def workload_of(item: dict[str, Any]) -> Workload | None:
    """Where the object keeps its template; None for Knative's kinds, and for kinds without pods."""
    group, kind = _group_kind(item)
    return _WORKLOADS.get((group, kind))


def knative_kind(item: dict[str, Any]) -> str | None:
    """Service, Configuration or Revision; None for everything else, Kubernetes' own Service included."""
    group, kind = _group_kind(item)
    return kind if group == KNATIVE_GROUP and kind in _KNATIVE else None


def template_path(item: dict[str, Any]) -> tuple[str, ...]:
    """The path of the pod template inside an object that has one."""
    workload = workload_of(item)
    return _KNATIVE.get(str(item.get("kind")), ()) if workload is None else workload.template


def template_at(item: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any] | None:
    """The template at the path; None where the object has none there."""
    here: Any = item
    for step in path:
        here = here.get(step) if isinstance(here, dict) else None
    return here if isinstance(here, dict) else None


def knative_template(item: dict[str, Any]) -> dict[str, Any] | None:
    """The pod template in a Service, Configuration or Revision (which is one itself), by its kind alone."""
    return template_at(item, _KNATIVE.get(str(item.get("kind")), _TEMPLATE))


def with_owner(item: dict[str, Any], template: dict[str, Any]) -> dict[str, Any]:
    """The StatefulSet's template as a pod that its controller makes, which names its owner; others as they are."""
    if _group_kind(item) != ("apps", "StatefulSet"):
        return template
    name = (item.get("metadata") or {}).get("name")
    owner = {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": name, "controller": True}
    return {**template, "metadata": {**(template.get("metadata") or {}), "ownerReferences": [owner]}}


def _claim_volumes(item: dict[str, Any]) -> list[dict[str, Any]]:
    """The volumes of its first pod, one for each claim."""
    if _group_kind(item) != ("apps", "StatefulSet"):
        return []
    own = (item.get("metadata") or {}).get("name")
    claims = [claim for claim in (item.get("spec") or {}).get("volumeClaimTemplates") or () if isinstance(claim, dict)]
    names = [(claim.get("metadata") or {}).get("name") for claim in claims]
    return [{"name": name, "persistentVolumeClaim": {"claimName": f"{name}-{own}-0"}} for name in names]


def as_made(item: dict[str, Any], template: dict[str, Any]) -> dict[str, Any]:
    """The template as a pod that its kind's controller makes: with its owner, and the volumes of its claims."""
    return with_claims(item, with_owner(item, template))


def with_claims(item: dict[str, Any], template: dict[str, Any]) -> dict[str, Any]:
    """The template with the volumes that a StatefulSet's controller adds; others as they are."""
    added = _claim_volumes(item)
    spec = template.get("spec")
    if not added or not isinstance(spec, dict):
        return template
    taken = {volume["name"] for volume in added}
    kept = [volume for volume in spec.get("volumes") or () if volume.get("name") not in taken]
    return {**template, "spec": {**spec, "volumes": [*added, *kept]}}


def without_owner(pod: dict[str, Any], template: dict[str, Any]) -> dict[str, Any]:
    """The pod, with owners as in the template that it came from."""
    metadata = {**(pod.get("metadata") or {})}
    metadata.pop("ownerReferences", None)
    owners = (template.get("metadata") or {}).get("ownerReferences")
    if owners is not None:
        metadata["ownerReferences"] = owners
    return {**pod, "metadata": metadata} if metadata or "metadata" in template else _without_metadata(pod)


def _without_metadata(pod: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in pod.items() if key != "metadata"}


def with_template(item: dict[str, Any], path: tuple[str, ...], template: dict[str, Any]) -> dict[str, Any]:
    """A copy of the object with another template, members in their old order."""
    if not path:
        return template
    return {**item, path[0]: with_template(item[path[0]], path[1:], template)}


def _group_kind(item: dict[str, Any]) -> tuple[str, str]:
    version, kind = str(item.get("apiVersion")), str(item.get("kind"))
    return version.rpartition("/")[0], kind
