"""Knative's own container in each pod of a Service."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from cli.knative.go_values import without_zeros, write_json
from cli.knative.settings import Settings
from measured.refusal import member, objects

NAME: Final = "queue-proxy"
_USER_PORT: Final = 8080
_HTTP_PORT: Final = 8012
_HTTP2_PORT: Final = 8013
_HTTPS_PORT: Final = 8112
_FULL_DUPLEX: Final = "features.knative.dev/http-full-duplex"
_POD_INFO: Final = "features.knative.dev/queueproxy-podinfo"
_LOCAL: Final = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Revision:
    """A Revision after its defaults. `spec` is a RevisionSpec."""

    namespace: str
    name: str
    service: str
    annotations: Mapping[str, str]
    spec: Mapping[str, Any]

    @property
    def serving_container(self) -> Mapping[str, Any]:
        """The container that takes the requests; empty where none names a port."""
        containers = objects(self.spec.get("containers"))
        if len(containers) == 1:
            return containers[0]
        return next((one for one in containers if one.get("ports")), {})

    @property
    def user_port(self) -> int:
        """The port that it listens on."""
        ports = objects(self.serving_container.get("ports"))
        return int(ports[0].get("containerPort") or _USER_PORT) if ports else _USER_PORT


def queue_proxy(revision: Revision, settings: Settings) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The container, and the volumes that it takes."""
    ports = objects(revision.serving_container.get("ports"))
    port = _HTTP2_PORT if ports and ports[0].get("name") == "h2c" else _HTTP_PORT
    mounts, volumes = _volumes(revision, settings)
    container = {
        "name": NAME,
        "image": settings.deployment.queue_image,
        "ports": [
            {"name": "http-autometric", "containerPort": 9090},
            {"name": "http-usermetric", "containerPort": 9091},
            {"name": "queue-port", "containerPort": port},
            {"name": "https-port", "containerPort": _HTTPS_PORT},
        ],
        "env": _environment(revision, settings, port),
        "resources": {"requests": {"cpu": "25m"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    if mounts:
        container["volumeMounts"] = mounts
    return container, volumes


def _environment(revision: Revision, settings: Settings, port: int) -> list[dict[str, Any]]:
    spec, features = revision.spec, settings.features
    full_duplex = revision.annotations.get(_FULL_DUPLEX, "").lower() == "enabled"
    return [
        _variable("SERVING_NAMESPACE", revision.namespace),
        _variable("SERVING_SERVICE", revision.service),
        _variable("SERVING_CONFIGURATION", revision.service),
        _variable("SERVING_REVISION", revision.name),
        _variable("QUEUE_SERVING_PORT", port),
        _variable("QUEUE_SERVING_TLS_PORT", _HTTPS_PORT),
        _variable("CONTAINER_CONCURRENCY", spec.get("containerConcurrency") or 0),
        _variable("REVISION_TIMEOUT_SECONDS", spec.get("timeoutSeconds") or 0),
        _variable("REVISION_RESPONSE_START_TIMEOUT_SECONDS", spec.get("responseStartTimeoutSeconds") or 0),
        _variable("REVISION_IDLE_TIMEOUT_SECONDS", spec.get("idleTimeoutSeconds") or 0),
        _field("SERVING_POD", "metadata.name"),
        _field("SERVING_POD_IP", "status.podIP"),
        _variable("SERVING_LOGGING_CONFIG", settings.logging_config),
        _variable("SERVING_LOGGING_LEVEL", settings.queue_log_level),
        _variable("USER_PORT", revision.user_port),
        _variable("SYSTEM_NAMESPACE", settings.system_namespace),
        _variable("SERVING_READINESS_PROBE", _readiness(revision, features.multi_container_probing)),
        _field("HOST_IP", "status.hostIP"),
        _variable("ENABLE_HTTP2_AUTO_DETECTION", str(features.autodetect_http2).lower()),
        _variable("ENABLE_HTTP_FULL_DUPLEX", str(full_duplex).lower()),
        *(_variable(name, value) for name, value in settings.deployment.queue_variables.items()),
        _variable("ENABLE_MULTI_CONTAINER_PROBES", str(features.multi_container_probing).lower()),
        _variable("OBSERVABILITY_CONFIG", write_json(dict(settings.observability))),
    ]


def _variable(name: str, value: object) -> dict[str, Any]:
    return {"name": name, "value": str(value)} if value != "" else {"name": name}


def _field(name: str, path: str) -> dict[str, Any]:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def _readiness(revision: Revision, several: bool) -> str:
    """The probes that queue-proxy makes itself, as JSON."""
    serving = revision.serving_container
    probes = [_probe(serving, revision.user_port)]
    if not several:
        return write_json(probes[0]) if probes[0] is not None else ""
    for container in objects(revision.spec.get("containers")):
        probe = member(container, "readinessProbe")
        if container is not serving and probe and "exec" not in probe:
            probes.append(_probe(container, 0))
    return write_json(probes)


def _probe(container: Mapping[str, Any], user_port: int) -> dict[str, Any] | None:
    given = container.get("readinessProbe")
    if not isinstance(given, dict):
        return None
    handler = _handler(given, user_port)
    seconds = ("initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold")
    counts = {name: given.get(name) or 0 for name in seconds}
    if counts["periodSeconds"] and counts["timeoutSeconds"] < 1:
        counts["timeoutSeconds"] = 1
    return {
        **handler,
        **without_zeros({**counts, "terminationGracePeriodSeconds": given.get("terminationGracePeriodSeconds")}),
    }


def _handler(given: Mapping[str, Any], user_port: int) -> dict[str, Any]:
    http, grpc = given.get("httpGet"), given.get("grpc")
    if isinstance(http, dict):
        members = {
            "path": http.get("path"),
            "port": _port(http.get("port"), user_port),
            "host": _LOCAL,
            "scheme": http.get("scheme") or "HTTP",
            "httpHeaders": [
                {"name": one.get("name", ""), "value": one.get("value", "")} for one in objects(http.get("httpHeaders"))
            ],
        }
        return {"httpGet": {key: value for key, value in members.items() if key == "port" or value}}
    if isinstance(grpc, dict):
        return {"grpc": {"port": _port(grpc.get("port"), user_port), "service": grpc.get("service")}}
    port = user_port if "exec" in given else _port(member(given, "tcpSocket").get("port"), user_port)
    return {"tcpSocket": {"port": port, "host": _LOCAL}}


def _port(value: object, user_port: int) -> int:
    if isinstance(value, str) and value.isdigit():
        value = int(value)
    return value if type(value) is int and value > 0 else user_port


def _volumes(revision: Revision, settings: Settings) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    mounts: list[dict[str, Any]] = []
    volumes: list[dict[str, Any]] = []
    asked = revision.annotations.get(_POD_INFO, "").lower() == "enabled"
    if settings.features.mount_pod_info == "enabled" or (settings.features.mount_pod_info == "allowed" and asked):
        mounts.append({"name": "pod-info", "mountPath": "/etc/podinfo", "readOnly": True})
        item = {"path": "annotations", "fieldRef": {"fieldPath": "metadata.annotations"}}
        volumes.append({"name": "pod-info", "downwardAPI": {"items": [item]}})
    if audiences := settings.deployment.token_audiences:
        mounts.append({"name": "knative-token-volume", "mountPath": "/var/run/secrets/tokens"})
        tokens = [
            {"serviceAccountToken": {"audience": one, "expirationSeconds": 3600, "path": one}} for one in audiences
        ]
        volumes.append({"name": "knative-token-volume", "projected": {"sources": tokens}})
    if settings.system_internal_tls:
        mounts.append({"name": "server-certs", "mountPath": "/var/lib/knative/certs", "readOnly": True})
        volumes.append({"name": "server-certs", "secret": {"secretName": "serving-certs"}})
    return mounts, volumes
