"""The pod that Knative makes of a Service, as far as the Service determines it."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from cli.knative.pod import REVISION_ONLY
from webhook.configuration.model import Configuration
from webhook.pod.container import Container, containers_of
from webhook.pod.pod import Pod
from webhook.pod.schema import validate_pod_shape
from webhook.wellknown import KNATIVE_CONFIGURATION, KNATIVE_SERVICE


def pod_of_service(service: dict[str, Any], namespace: str) -> dict[str, Any]:
    """A copy of the pod in a Service's template; the caller has checked the Service's shape."""
    template = service["spec"]["template"]
    given = template.get("metadata") or {}
    name = (service.get("metadata") or {}).get("name") or "service"
    metadata = {
        "generateName": f"{name}-",
        "namespace": namespace,
        "labels": {**(given.get("labels") or {}), KNATIVE_CONFIGURATION: name, KNATIVE_SERVICE: name},
    }
    if given.get("annotations"):
        metadata["annotations"] = dict(given["annotations"])
    spec = deepcopy({key: value for key, value in template["spec"].items() if key not in REVISION_ONLY})
    if (timeout := template["spec"].get("timeoutSeconds")) is not None:
        # A pod has as long to terminate as a request has to be answered (pkg/reconciler/revision/resources/deploy.go).
        spec["terminationGracePeriodSeconds"] = timeout
    _name_containers(spec)
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
    validate_pod_shape(pod)
    return pod


def _name_containers(spec: dict[str, Any]) -> None:
    """Give unnamed containers Knative's default names."""
    for container in list(containers_of(spec)):
        if not container.object.get("name"):
            spec[container.group][container.position] = {"name": container.name} | {
                key: value for key, value in container.object.items() if key != "name"
            }


def containers_needing_entrypoint(
    pod: dict[str, Any], namespace: str, configuration: Configuration, claims: str = ""
) -> tuple[Container, ...]:
    """The containers that get secrets as environment and have no command for the exec helper to run.

    `claims`: the service that a pod of another kind is.
    """
    view = Pod(pod, namespace, configuration, claims=claims)
    takers = {references.container.field for references in view.references if references.variables}
    if view.options.env_from:
        takers |= {consumer.field for consumer in view.consumers}
    return tuple(each for each in view.containers if each.field in takers and not each.object.get("command"))
