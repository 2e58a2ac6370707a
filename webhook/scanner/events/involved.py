"""Which object an Event is about: the Knative Service, else the Deployment or other owner, else the object itself.

`kubectl describe` finds Events by the uid of what it describes, so the uid is looked up.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from server.kubernetes.untyped import controller_of, is_name, text
from webhook.scanner.events.trouble import Trouble
from webhook.scanner.finding import ObjectId
from webhook.wellknown import KNATIVE_GROUP, KNATIVE_SERVICE

if TYPE_CHECKING:
    from server.kubernetes.client import Client

_REPLICA_SET: Final = ("apps/v1", "ReplicaSet")


async def involved_object(client: Client, trouble: Trouble) -> ObjectId | None:
    """The object; None where all of them are gone. Raises KubernetesError.

    A pod and its ReplicaSet belong together only where the uid says so: every author writes ownerReferences and
    labels. A Service in the same namespace is what a label can name at most.
    """
    source, service = trouble.source, trouble.service
    if _kind(source) == _REPLICA_SET:
        replica_set = source
    elif trouble.owner is not None and _kind(trouble.owner) == _REPLICA_SET:
        replica_set = trouble.owner
    else:
        return trouble.owner or source
    found = await _get(client, "/apis/apps/v1", replica_set.namespace, "replicasets", replica_set.name)
    if found is None or _uid(found) != replica_set.uid:
        return None
    metadata = found["metadata"]
    service = service or str((metadata.get("labels") or {}).get(KNATIVE_SERVICE, ""))
    if service:
        of_knative = await _get(client, f"/apis/{KNATIVE_GROUP}/v1", source.namespace, "services", service)
        if of_knative is not None:
            return ObjectId(f"{KNATIVE_GROUP}/v1", "Service", source.namespace, service, _uid(of_knative))
    return source.owner_by(controller_of(metadata)) or replica_set


async def _get(client: Client, root: str, namespace: str, resource: str, name: str) -> Mapping[str, Any] | None:
    if not is_name(namespace) or not is_name(name):
        return None
    found = await client.find(f"{root}/namespaces/{namespace}/{resource}/{name}")
    return found if found is not None and isinstance(found.get("metadata"), Mapping) else None


def _uid(item: Mapping[str, Any]) -> str:
    return text(item["metadata"].get("uid"))


def _kind(identity: ObjectId) -> tuple[str, str]:
    return identity.api_version, identity.kind
