"""What Knative's webhook fills in of a Revision, as far as it reaches a container's process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cli.knative.names import child_name
from cli.knative.settings import Settings
from measured.refusal import member, objects


def fill_in(spec: dict[str, Any], settings: Settings) -> None:
    """Change a RevisionSpec in place."""
    defaults = settings.defaults
    if not spec.get("timeoutSeconds"):
        spec["timeoutSeconds"] = defaults.timeout_seconds
    for name, value in (
        ("idleTimeoutSeconds", defaults.idle_timeout_seconds),
        ("responseStartTimeoutSeconds", defaults.response_start_timeout_seconds),
    ):
        if spec.get(name) is None and 0 != value < spec["timeoutSeconds"]:
            spec[name] = value
    if spec.get("containerConcurrency") is None:
        spec["containerConcurrency"] = defaults.container_concurrency
    if spec.get("enableServiceLinks") is None and defaults.enable_service_links is not None:
        spec["enableServiceLinks"] = defaults.enable_service_links
    _name_containers(spec, defaults.container_name)
    containers = objects(spec.get("containers"))
    writable = {volume.get("name") for volume in objects(spec.get("volumes")) if _is_writable(volume)}
    for container in containers:
        if len(containers) == 1 or container.get("ports"):
            _fill_in_readiness(container)
        _complete_probes(container)
        for mount in objects(container.get("volumeMounts")):
            if mount.get("name") not in writable:
                mount["readOnly"] = True
    for container in [*containers, *objects(spec.get("initContainers"))]:
        _fill_in_security(container, member(spec, "securityContext"), settings.features.secure_pod_defaults)


def _name_containers(spec: dict[str, Any], default: str) -> None:
    containers = objects(spec.get("containers"))
    taken = {one.get("name", "") for one in [*containers, *objects(spec.get("initContainers"))]}
    suffix = 0
    for container in containers:
        if container.get("name"):
            continue
        name = default
        if len(containers) > 1 or name in taken:
            name = child_name(default, f"-{suffix}")
            while name in taken:
                suffix += 1
                name = child_name(default, f"-{suffix}")
            suffix += 1
        container["name"] = name


def _is_writable(volume: Mapping[str, Any]) -> bool:
    return any(isinstance(volume.get(kind), dict) for kind in ("emptyDir", "persistentVolumeClaim", "ephemeral"))


def _fill_in_readiness(container: dict[str, Any]) -> None:
    probe = container.setdefault("readinessProbe", {}) or {}
    container["readinessProbe"] = probe
    if not any(isinstance(probe.get(kind), dict) for kind in ("tcpSocket", "httpGet", "exec", "grpc")):
        probe["tcpSocket"] = {}


def _complete_probes(container: dict[str, Any]) -> None:
    probe = container.get("readinessProbe")
    if isinstance(probe, dict):
        probe["successThreshold"] = probe.get("successThreshold") or 1
        if probe.get("periodSeconds"):
            probe["failureThreshold"] = probe.get("failureThreshold") or 3
            probe["timeoutSeconds"] = probe.get("timeoutSeconds") or 1
    for name in ("readinessProbe", "livenessProbe", "startupProbe"):
        grpc = member(container, name).get("grpc")
        if isinstance(grpc, dict):
            grpc.setdefault("service", "")


def _fill_in_security(container: dict[str, Any], pod: Mapping[str, Any], mode: str) -> None:
    if mode not in ("enabled", "allowrootbounded"):
        return
    security = container.setdefault("securityContext", {})
    if security.get("allowPrivilegeEscalation") is None:
        security["allowPrivilegeEscalation"] = False
    if not member(pod, "seccompProfile").get("type"):
        profile = security.setdefault("seccompProfile", {})
        profile["type"] = profile.get("type") or "RuntimeDefault"
    if security.get("capabilities") is None:
        low = any((port.get("containerPort") or 0) < 1024 for port in objects(container.get("ports")))
        security["capabilities"] = {"drop": ["ALL"], **({"add": ["NET_BIND_SERVICE"]} if low else {})}
    if mode == "enabled" and pod.get("runAsNonRoot") is None and security.get("runAsNonRoot") is None:
        security["runAsNonRoot"] = True
