"""The pod that a workload's controller makes next, and the user who creates it, as admission will see them."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from server.kubernetes.untyped import controller_of
from webhook.admission.knative_template import template_pod, validate_template_owner_shape
from webhook.configuration.model import Configuration
from webhook.errors import MalformedError
from webhook.pod.pod import Pod
from webhook.pod.schema import validate_pod_shape
from webhook.pod.workloads import knative_kind, template_at, template_path, with_claims, workload_of
from webhook.request import User
from webhook.rewrite.template_choice import choose_template
from webhook.snapshot import Snapshot
from webhook.wellknown import POD_TEMPLATE_HASH

# Of a pod that runs already: the scheduler chose the node, and the kubelet keeps the others.
OF_A_RUNNING_POD: Final = ("nodeName", "ephemeralContainers")

_AUTHOR: Final = User("author", ("system:authenticated",))
# A hash and a minute like those that the controllers put behind a Deployment's and a CronJob's name.
_HASH: Final = "0"
_MINUTE: Final = "00000000"


class MadePod(NamedTuple):
    """`user` is None where it is not known who creates the pod."""

    object: dict[str, Any]
    user: User | None


class NextPod(NamedTuple):
    """`user` is None for Knative's kinds too, whose pods a Deployment's controller creates."""

    pod: Pod
    user: User | None


def next_pod(item: dict[str, Any], namespace: str, configuration: Configuration, snapshot: Snapshot | None) -> NextPod:
    """The next pod of any workload before injection, with the container template that it gets.

    Raises MalformedError.
    """
    if knative_kind(item) is not None:
        validate_template_owner_shape(item)
        return NextPod(template_pod(item, namespace, configuration, snapshot), None)
    made = made_pod(item)
    return NextPod(choose_template(made.object, namespace, configuration, snapshot).pod, made.user)


def made_pod(item: dict[str, Any]) -> MadePod:
    """The next pod of a workload of Kubernetes' own kinds, or the pod itself. Raises MalformedError."""
    path = template_path(item)
    template = template_at(item, path)
    where = ".".join(("object", *path))
    if template is None:
        raise MalformedError(f"{where}: not an object")
    validate_pod_shape(template, where)
    if not path:
        spec = {key: value for key, value in template["spec"].items() if key not in OF_A_RUNNING_POD}
        return MadePod({**template, "spec": spec}, _creator_of_pod(template))
    workload = workload_of(item)
    creator = None if workload is None else workload.creator
    metadata = dict(template.get("metadata") or {})
    owner = _owner(item)
    metadata["ownerReferences"] = [{**owner, "controller": True}]
    if item.get("kind") == "Deployment":
        metadata["labels"] = {**(metadata.get("labels") or {}), POD_TEMPLATE_HASH: _HASH}
    made = {**with_claims(item, template), "metadata": metadata}
    return MadePod(made, None if creator is None else User(creator))


def _owner(item: dict[str, Any]) -> dict[str, Any]:
    """The object that owns the workload's pods: its own, but for a Deployment and a CronJob, which make another."""
    kind, name = item.get("kind"), (item.get("metadata") or {}).get("name")
    if kind == "Deployment":
        return {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": f"{name}-{_HASH}"}
    if kind == "CronJob":
        return {"apiVersion": "batch/v1", "kind": "Job", "name": f"{name}-{_MINUTE}"}
    return {"apiVersion": item.get("apiVersion"), "kind": kind, "name": name}


def _creator_of_pod(pod: dict[str, Any]) -> User | None:
    """Who creates such a pod again: its owner's controller, or without an owner a person."""
    reference = controller_of(pod.get("metadata") or {})
    if not reference:
        return _AUTHOR
    owner = workload_of(dict(reference))
    return None if owner is None or owner.creator is None else User(owner.creator)
