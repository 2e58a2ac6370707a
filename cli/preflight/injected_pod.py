"""The next pod of a workload, as injection leaves it: what LimitRanges, quotas and the scheduler will see."""

from __future__ import annotations

import copy
from decimal import Decimal
from typing import Any

from cli.knative.pod import REVISION_ONLY
from cli.support.pod_resources import most_at_once
from webhook.configuration.model import Configuration
from webhook.errors import MalformedError
from webhook.pod.container import containers_of
from webhook.quantity import amount_of
from webhook.rewrite import rewrite
from webhook.scanner.made_pod import next_pod
from webhook.snapshot import Snapshot
from webhook.wellknown import KNATIVE_GROUP

_RESOURCES = ("cpu", "memory")


def injected_pod(
    item: dict[str, Any], namespace: str, configuration: Configuration, snapshot: Snapshot | None
) -> dict[str, Any] | None:
    """The pod; None for an object that cannot be read, which is a finding of its own."""
    try:
        return rewrite(next_pod(item, namespace, configuration, snapshot).pod, snapshot).result
    except MalformedError:
        return None


def as_anyones(pod: dict[str, Any]) -> dict[str, Any]:
    """The pod under a name of its own and without an owner, for a request that is not its controller's."""
    metadata = pod.get("metadata") or {}
    kept = {
        key: {name: value for name, value in (metadata.get(key) or {}).items() if KNATIVE_GROUP not in name}
        for key in ("labels", "annotations")
    }
    spec = {key: value for key, value in copy.deepcopy(pod["spec"]).items() if key not in REVISION_ONLY}
    for container in list(containers_of(spec)):
        spec[container.group][container.position].setdefault("name", container.name)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"generateName": "morphisms-preflight-", **kept},
        "spec": spec,
    }


def requests(spec: dict[str, Any], overhead: dict[str, Any]) -> dict[str, Decimal]:
    """What the scheduler reserves: for the containers, for what runs beside them, and the RuntimeClass's overhead."""
    return {name: _reserved(spec, name) + (amount_of(overhead.get(name)) or Decimal(0)) for name in _RESOURCES}


def _reserved(spec: dict[str, Any], name: str) -> Decimal:
    own = amount_of(((spec.get("resources") or {}).get("requests") or {}).get(name))
    return own if own is not None else most_at_once(spec, lambda container: _amount(container, name))


def _amount(container: dict[str, Any], name: str) -> Decimal:
    resources = container.get("resources") or {}
    found = amount_of((resources.get("requests") or {}).get(name))
    if found is None:
        found = amount_of((resources.get("limits") or {}).get(name))
    return found or Decimal(0)
