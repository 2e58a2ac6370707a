"""From a Service with an explicit revision name to the pod that its Deployment makes."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any, Final

from cli.knative.defaults import fill_in
from cli.knative.names import deployment_name
from cli.knative.queue_proxy import Revision, queue_proxy
from cli.knative.settings import Settings
from measured.pod_name import PodName, name_of_deployment
from measured.refusal import member, objects

REVISION_ONLY: Final = (
    "containerConcurrency",
    "timeoutSeconds",
    "responseStartTimeoutSeconds",
    "idleTimeoutSeconds",
)
"""Members of a RevisionSpec, but of no PodSpec (pkg/apis/serving/v1, RevisionSpec)."""

_NOT_PASSED_ON: Final = (
    "serving.knative.dev/lastPinned",
    "serving.knative.dev/preserved",
    "serving.knative.dev/routingStateModified",
    "serving.knative.dev/routes",
)
_AUTOSCALING: Final = "autoscaling.knative.dev"
_DRAIN: Final = {"preStop": {"httpGet": {"path": "/wait-for-drain", "port": 8022}}}


def pod_of(service: Mapping[str, Any], namespace: str, settings: Settings) -> tuple[dict[str, Any], PodName]:
    """The pod before our injection, and the names that it can have. The template names its Revision."""
    template = member(member(service, "spec"), "template")
    metadata = member(template, "metadata")
    name = str(member(service, "metadata").get("name"))
    spec = deepcopy(member(template, "spec"))
    fill_in(spec, settings)
    annotations = {key: str(value) for key, value in member(metadata, "annotations").items()}
    revision = Revision(namespace, str(metadata["name"]), name, annotations, spec)
    deployment = deployment_name(revision.name)
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": f"{deployment}-",
            "namespace": namespace,
            "labels": _labels(member(metadata, "labels"), revision),
            "annotations": _annotations(revision),
        },
        "spec": _pod_spec(revision, settings),
    }
    return pod, name_of_deployment(deployment)


def _pod_spec(revision: Revision, settings: Settings) -> dict[str, Any]:
    spec = {key: value for key, value in revision.spec.items() if key not in REVISION_ONLY}
    own = objects(spec.get("containers"))
    containers = [_user_container(one, revision, len(own) == 1) for one in own]
    queue, volumes = queue_proxy(revision, settings)
    if settings.collects_var_log:
        for container in containers:
            _collect_var_log(container)
        volumes = [*volumes, {"name": "knative-var-log", "emptyDir": {}}]
    spec["containers"] = [*containers, queue]
    if all_volumes := [*objects(spec.get("volumes")), *volumes]:
        spec["volumes"] = all_volumes
    spec["terminationGracePeriodSeconds"] = revision.spec["timeoutSeconds"]
    return spec


def _user_container(given: dict[str, Any], revision: Revision, only: bool) -> dict[str, Any]:
    container = {key: value for key, value in given.items() if key not in ("stdin", "tty")}
    env = list(container.get("env") or [])
    if only or container.get("ports"):
        container["ports"] = [{"name": "user-port", "containerPort": revision.user_port}]
        env.append({"name": "PORT", "value": str(revision.user_port)})
    container["env"] = [
        *env,
        {"name": "K_REVISION", "value": revision.name},
        {"name": "K_CONFIGURATION", "value": revision.service},
        {"name": "K_SERVICE", "value": revision.service},
    ]
    container["lifecycle"] = deepcopy(_DRAIN)
    container.setdefault("terminationMessagePolicy", "FallbackToLogsOnError")
    if "exec" not in member(container, "readinessProbe"):
        container.pop("readinessProbe", None)
    return container


def _collect_var_log(container: dict[str, Any]) -> None:
    path = f"$(K_INTERNAL_POD_NAMESPACE)_$(K_INTERNAL_POD_NAME)_{container['name']}"
    mount = {"name": "knative-var-log", "mountPath": "/var/log", "subPathExpr": path}
    container["volumeMounts"] = [*objects(container.get("volumeMounts")), mount]
    for name, field in (("K_INTERNAL_POD_NAME", "metadata.name"), ("K_INTERNAL_POD_NAMESPACE", "metadata.namespace")):
        container["env"].append({"name": name, "valueFrom": {"fieldRef": {"fieldPath": field}}})


def _labels(given: Mapping[str, Any], revision: Revision) -> dict[str, str]:
    return {
        "app": revision.name,
        **{key: str(value) for key, value in given.items()},
        "serving.knative.dev/configuration": revision.service,
        "serving.knative.dev/revision": revision.name,
        "serving.knative.dev/service": revision.service,
    }


def _annotations(revision: Revision) -> dict[str, str]:
    kept = {
        key: value
        for key, value in revision.annotations.items()
        if key not in _NOT_PASSED_ON and not key.startswith(_AUTOSCALING)
    }
    serving = revision.serving_container.get("name")
    return {**kept, **({"kubectl.kubernetes.io/default-container": str(serving)} if serving else {})}
