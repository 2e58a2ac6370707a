"""The cluster as decisions see it: small records, never whole objects, never pods; and look-ups as values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from webhook.configuration.accepted_templates import AcceptedTemplates
from webhook.configuration.templates_map import read_map
from webhook.modes import Mode, mode_of_label
from webhook.node_records import NodeRecord, Taint
from webhook.wellknown import MODE_LABEL, TEMPLATES_CONFIG_MAP


@dataclass(frozen=True, slots=True)
class RuntimeClassRecord:
    """A RuntimeClass: its handler, and the nodeSelector that the API server merges into the pod's."""

    name: str
    handler: str
    node_selector: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class PodLookup:
    """A decision needs this Pod."""

    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class WorkloadsLookup:
    """A decision needs what makes pods in this namespace, and its pods."""

    namespace: str


LISTED_KINDS: Final[dict[str, tuple[str, str]]] = {
    "Revision": ("serving.knative.dev/v1", "revisions"),
    "Deployment": ("apps/v1", "deployments"),
    "StatefulSet": ("apps/v1", "statefulsets"),
    "DaemonSet": ("apps/v1", "daemonsets"),
    "CronJob": ("batch/v1", "cronjobs"),
    "Job": ("batch/v1", "jobs"),
    "ReplicaSet": ("apps/v1", "replicasets"),
    "Pod": ("v1", "pods"),
}
"""The kinds that a `WorkloadsLookup` lists: (apiVersion, resource) by kind. Revisions are those with a route."""

Lookup = PodLookup | WorkloadsLookup
"""What one decision needs besides the records. The caller looks it up, bounded in time, and decides afterwards."""


@dataclass(frozen=True, slots=True)
class Listing:
    """Objects of one kind, in parts: `is_whole` False where there are more. `items` None: they could not be listed."""

    kind: str
    items: tuple[dict[str, Any], ...] | None
    is_whole: bool = True


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a look-up found. None: the look-up failed, or was not made."""

    pod: dict[str, Any] | None = None
    workloads: tuple[Listing, ...] | None = None


_NOT_FETCHED: Final = Fetched()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The cluster as last seen.

    `now` is the time of the decision; None where it is not known, and then no exception is in force.
    `age_seconds` is None for a snapshot that does not age (a file). `unlisted` is the mode of a namespace that is not
    in `namespaces`: ABSENT for a file, ENFORCE for a watch, which may lag behind a namespace just made. `templates` are
    the container templates that replicas accept from each other; None where the configuration's alone counts.
    """

    namespaces: Mapping[str, Mode] = field(default_factory=dict)
    nodes: Mapping[str, NodeRecord] = field(default_factory=dict)
    runtime_classes: Mapping[str, RuntimeClassRecord] = field(default_factory=dict)
    age_seconds: float | None = None
    unlisted: Mode = Mode.ABSENT
    now: datetime | None = None
    fetched: Fetched = _NOT_FETCHED
    templates: AcceptedTemplates | None = None

    def mode_of(self, namespace: str) -> Mode:
        """The namespace's mode."""
        return self.namespaces.get(namespace, self.unlisted)

    def with_templates(self, templates: AcceptedTemplates | None) -> Snapshot:
        """The same cluster with the container templates that replicas accept from each other."""
        return replace(self, templates=templates)

    def with_fetched(self, fetched: Fetched) -> Snapshot:
        """The same cluster with what a look-up found."""
        return replace(self, fetched=fetched)


def _metadata(item: Mapping[str, Any]) -> Mapping[str, Any]:
    metadata = item.get("metadata")
    return metadata if isinstance(metadata, Mapping) else {}


def _strings(value: Any) -> tuple[tuple[str, str], ...]:
    pairs = value.items() if isinstance(value, Mapping) else ()
    return tuple((key, text) for key, text in pairs if isinstance(key, str) and isinstance(text, str))


def namespace_mode(item: Mapping[str, Any]) -> Mode:
    """The mode that a Namespace object's label gives it."""
    return mode_of_label(dict(_strings(_metadata(item).get("labels"))).get(MODE_LABEL))


def node_record(item: Mapping[str, Any], label_keys: frozenset[str] | None = None) -> NodeRecord:
    """The record of a Node object; with `label_keys`, only those labels (5,000 nodes have to fit in memory)."""
    spec = item.get("spec")
    taints = (spec.get("taints") if isinstance(spec, Mapping) else None) or ()
    labels = _strings(_metadata(item).get("labels"))
    return NodeRecord(
        name=str(_metadata(item).get("name", "")),
        labels=labels if label_keys is None else tuple(pair for pair in labels if pair[0] in label_keys),
        taints=tuple(
            Taint(str(taint.get("key", "")), str(taint.get("value") or ""), str(taint.get("effect", "")))
            for taint in taints
            if isinstance(taint, Mapping)
        ),
    )


def runtime_class_record(item: Mapping[str, Any]) -> RuntimeClassRecord:
    """The record of a RuntimeClass object."""
    scheduling = item.get("scheduling")
    selector = scheduling.get("nodeSelector") if isinstance(scheduling, Mapping) else None
    return RuntimeClassRecord(str(_metadata(item).get("name", "")), str(item.get("handler", "")), _strings(selector))


def snapshot_of_objects(items: Iterable[Any]) -> Snapshot:
    """The snapshot that a `kind: List` of Namespaces, Nodes and RuntimeClasses gives.

    The ConfigMap with the container templates counts too. Objects of other kinds are ignored; Pods and what makes them
    are for `find_in_objects`.
    """
    namespaces, nodes, classes = {}, {}, {}
    templates = None
    for item in items:
        if not isinstance(item, Mapping):
            continue
        kind, name = item.get("kind"), str(_metadata(item).get("name", ""))
        if kind == "Namespace":
            namespaces[name] = namespace_mode(item)
        elif kind == "Node":
            nodes[name] = node_record(item)
        elif kind == "RuntimeClass":
            classes[name] = runtime_class_record(item)
        elif kind == "ConfigMap" and name == TEMPLATES_CONFIG_MAP:
            templates = read_map(item.get("data")).templates
    return Snapshot(namespaces, nodes, classes, templates=templates)


def find_in_objects(items: Iterable[Any], lookup: Lookup) -> Fetched:
    """What the look-up would have found in a cluster that holds these objects."""
    found = [item for item in items if isinstance(item, dict) and _metadata(item).get("namespace") == lookup.namespace]
    if isinstance(lookup, PodLookup):
        pods = [item for item in found if item.get("kind") == "Pod" and _metadata(item).get("name") == lookup.name]
        return Fetched(pod=pods[-1] if pods else None)
    return Fetched(
        workloads=tuple(
            Listing(
                kind, tuple(item for item in found if (item.get("kind"), item.get("apiVersion")) == (kind, version))
            )
            for kind, (version, _) in LISTED_KINDS.items()
        )
    )
