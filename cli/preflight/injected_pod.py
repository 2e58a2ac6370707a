"""The next pod of a workload, as injection leaves it: what LimitRanges, quotas and the scheduler will see."""

from __future__ import annotations

import copy
import re
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
from webhook.wellknown import KNATIVE_GROUP, PREFIX

_RESOURCES = ("cpu", "memory")
_KNATIVES_PORT = 8080
# Annotations that hold references, several in env-from; and `~/` where one starts.
_REFERRING = re.compile(re.escape(PREFIX) + "(secret-|env-from$)")
_OWN = re.compile(r"(?<![^,\s])~/")


def injected_pod(
    item: dict[str, Any], namespace: str, configuration: Configuration, snapshot: Snapshot | None
) -> dict[str, Any] | None:
    """The pod; None for an object that cannot be read, which is a finding of its own."""
    try:
        pod = next_pod(item, namespace, configuration, snapshot).pod
        return _with_whole_paths(rewrite(pod, snapshot).result, pod.secret_prefix.path)
    except MalformedError:
        return None


def _with_whole_paths(pod: dict[str, Any], prefix: str | None) -> dict[str, Any]:
    """What annotations name by `~/`, by its path: under another owner the pod has another prefix, or none."""
    annotations = (pod.get("metadata") or {}).get("annotations")
    if not annotations or prefix is None:
        return pod
    whole = {key: _OWN.sub(prefix, value) if _REFERRING.match(key) else value for key, value in annotations.items()}
    return {**pod, "metadata": {**pod["metadata"], "annotations": whole}}


def as_anyones(pod: dict[str, Any]) -> dict[str, Any]:
    """The pod under a name of its own and without an owner, for a request that is not its controller's."""
    metadata = pod.get("metadata") or {}
    kept = {
        key: {name: value for name, value in (metadata.get(key) or {}).items() if KNATIVE_GROUP not in name}
        for key in ("labels", "annotations")
    }
    spec = {key: value for key, value in copy.deepcopy(pod["spec"]).items() if key not in REVISION_ONLY}
    is_knative = spec.keys() < pod["spec"].keys()
    for container in list(containers_of(spec)):
        written = spec[container.group][container.position]
        written.setdefault("name", container.name)
        if is_knative:
            _set_probes(written)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"generateName": "morphisms-preflight-", **kept},
        "spec": spec,
    }


def _set_probes(container: dict[str, Any]) -> None:
    """Knative has queue-proxy ask what is no command, and sends the other probes without a port to the container's."""
    if "exec" not in (container.get("readinessProbe") or {}):
        container.pop("readinessProbe", None)
    ports = [port.get("containerPort") for port in container.get("ports") or ()]
    for name in ("livenessProbe", "startupProbe"):
        for kind in ("httpGet", "tcpSocket", "grpc"):
            handler = (container.get(name) or {}).get(kind)
            if handler is not None and not handler.get("port"):
                handler["port"] = ports[0] if ports else _KNATIVES_PORT


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
