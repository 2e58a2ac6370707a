"""The kinds that are looked at, and which objects of them count: those that no other looked-at object makes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from server.kubernetes.untyped import controller_of
from webhook.admission.namespace_workloads import is_looked_at
from webhook.snapshot import LISTED_KINDS
from webhook.wellknown import KNATIVE_GROUP


@dataclass(frozen=True, slots=True)
class ScannedKind:
    """`resource` is its name in paths; `is_optional`: a cluster may lack it, which is no failure."""

    api_version: str
    kind: str
    resource: str
    is_optional: bool = False

    def path(self, namespace: str | None = None) -> str:
        """The path of the collection: one namespace's, or all objects."""
        root = f"/apis/{self.api_version}" if "/" in self.api_version else f"/api/{self.api_version}"
        within = "" if namespace is None else f"/namespaces/{namespace}"
        return f"{root}{within}/{self.resource}"


SCANNED_KINDS: Final[tuple[ScannedKind, ...]] = (
    ScannedKind(f"{KNATIVE_GROUP}/v1", "Service", "services", is_optional=True),
    ScannedKind(f"{KNATIVE_GROUP}/v1", "Configuration", "configurations", is_optional=True),
    *(
        ScannedKind(version, kind, resource, is_optional=version.startswith(KNATIVE_GROUP))
        for kind, (version, resource) in LISTED_KINDS.items()
    ),
    ScannedKind("v1", "ReplicationController", "replicationcontrollers"),
)
"""Services first: what belongs to one comes after it."""

CONTROLLER_REVISION: Final = ScannedKind("apps/v1", "ControllerRevision", "controllerrevisions")
"""Makes no pods; a former template of a StatefulSet or DaemonSet stays in it."""


def counts(item: Mapping[str, Any]) -> bool:
    """Whether the object is to be evaluated by itself.

    It is not where another one of the kinds makes it, where no route leads to it any more, or where it has ended. A
    Service counts, and so do its routable Revisions, which are immutable and come back from zero.
    """
    metadata = item.get("metadata")
    if not isinstance(metadata, Mapping):
        return True
    if item.get("kind") == "Configuration":
        return _controller(metadata) == ""
    if item.get("kind") == "Pod" and _controller(metadata) == "ReplicationController":
        return False
    return is_looked_at(str(item.get("kind")), dict(item))


def _controller(metadata: Mapping[str, Any]) -> str:
    """The kind of the controlling owner; empty without one."""
    owner = controller_of(metadata)
    return str(owner.get("kind")) if owner else ""
