"""A cluster's Knative settings: its version and the ConfigMaps that reach a pod."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from cli.knative.go_values import parse_bool, parse_duration, parse_float, parse_integer, without_zeros

CONFIG_MAPS: Final = (
    "config-defaults",
    "config-deployment",
    "config-features",
    "config-logging",
    "config-network",
    "config-observability",
)
"""Those that decide what a pod looks like; `_example` says nothing."""

MINOR_VERSIONS: Final = (21, 22, 23)
"""Knative 1.N whose pods are known. A test compares each with what Knative's own functions make."""

_QUEUE_TLS_SINCE: Final = 22
"""The first minor version whose queue-proxy is told its TLS versions and ciphers."""

_VERSION: Final = re.compile(r"v?1\.([0-9]{1,3})(\.[0-9]+)?([-+].*)?")
_LEVELS: Final = ("debug", "info", "warn", "error", "dpanic", "panic", "fatal")
_REQUEST_LOG: Final = (
    '{"httpRequest": {"requestMethod": "{{.Request.Method}}", "requestUrl": "{{js .Request.RequestURI}}",'
    ' "requestSize": "{{.Request.ContentLength}}", "status": {{.Response.Code}}, "responseSize":'
    ' "{{.Response.Size}}", "userAgent": "{{js .Request.UserAgent}}", "remoteIp": "{{js .Request.RemoteAddr}}",'
    ' "serverIp": "{{.Revision.PodIP}}", "referer": "{{js .Request.Referer}}", "latency": "{{.Response.Latency}}s",'
    ' "protocol": "{{.Request.Proto}}"}, "traceId": "{{.TraceID}}"}'
)

T = TypeVar("T")


class SettingsError(ValueError):
    """A setting cannot be read, or its pods are not known. The message names ConfigMap and key."""


@dataclass(frozen=True, slots=True)
class ConfigMap:
    """One ConfigMap's data."""

    name: str
    data: Mapping[str, str]

    def text(self, key: str, default: str = "") -> str:
        """The value without the blanks around it."""
        return self.data.get(key, default).strip()

    def value(self, key: str, parse: Callable[[str], T], default: T) -> T:
        """The value, parsed. Raises SettingsError."""
        text = self.data.get(key)
        if text is None:
            return default
        try:
            return parse(text)
        except ValueError as error:
            raise SettingsError(f"{self.name}: {key} {error}") from None

    def flag(self, key: str, default: str = "disabled", *, known: tuple[str, ...] = ()) -> str:
        """A feature's flag in lower case; another word leaves the default."""
        found = self.data.get(key, "").lower()
        return found if found in ("enabled", "allowed", "disabled", *known) else default


@dataclass(frozen=True, slots=True)
class Defaults:
    """config-defaults."""

    timeout_seconds: int
    response_start_timeout_seconds: int
    idle_timeout_seconds: int
    container_concurrency: int
    container_name: str
    enable_service_links: bool | None


@dataclass(frozen=True, slots=True)
class Deployment:
    """config-deployment."""

    queue_image: str
    token_audiences: tuple[str, ...]
    queue_variables: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Features:
    """config-features."""

    autodetect_http2: bool
    multi_container_probing: bool
    secure_pod_defaults: str
    mount_pod_info: str
    pod_security_context: str


@dataclass(frozen=True, slots=True)
class Settings:
    """All of them. `observability`: the value that queue-proxy gets, in the order of Go's struct."""

    minor: int
    system_namespace: str
    defaults: Defaults
    deployment: Deployment
    features: Features
    logging_config: str
    queue_log_level: str
    system_internal_tls: bool
    collects_var_log: bool
    observability: Mapping[str, Any] = field(repr=False)


def minor_version(version: str) -> int:
    """N of Knative's version v1.N.… Raises SettingsError for one whose pods are not known."""
    match = _VERSION.fullmatch(version)
    if match is None or int(match[1]) not in MINOR_VERSIONS:
        known = ", ".join(f"1.{minor}" for minor in MINOR_VERSIONS)
        raise SettingsError(f"Knative's version is none of {known}, whose pods are known; upgrade Morphisms or Knative")
    return int(match[1])


def read_settings(version: str, system_namespace: str, config_maps: Mapping[str, Mapping[str, str]]) -> Settings:
    """The settings of a cluster. Raises SettingsError."""
    minor = minor_version(version)
    maps = {name: ConfigMap(name, config_maps.get(name, {})) for name in CONFIG_MAPS}
    logging = maps["config-logging"]
    return Settings(
        minor=minor,
        system_namespace=system_namespace,
        defaults=_defaults(maps["config-defaults"]),
        deployment=_deployment(maps["config-deployment"], minor),
        features=_features(maps["config-features"]),
        logging_config=logging.data.get("zap-logger-config", ""),
        queue_log_level=_level(logging),
        system_internal_tls=maps["config-network"].text("system-internal-tls").lower() == "enabled",
        collects_var_log=maps["config-observability"].value("logging.enable-var-log-collection", parse_bool, False),
        observability=_observability(maps["config-observability"]),
    )


def _defaults(data: ConfigMap) -> Defaults:
    name = data.text("container-name-template", "user-container")
    if "{{" in name:
        raise SettingsError("config-defaults: container-name-template is computed; name the containers in the Service")
    timeout = data.value("revision-timeout-seconds", parse_integer, 300)
    links = data.text("enable-service-links", "false").lower()
    return Defaults(
        timeout_seconds=timeout,
        response_start_timeout_seconds=data.value("revision-response-start-timeout-seconds", parse_integer, timeout),
        idle_timeout_seconds=data.value("revision-idle-timeout-seconds", parse_integer, 0),
        container_concurrency=data.value("container-concurrency", parse_integer, 0),
        container_name=name,
        enable_service_links=None if links == "default" else links == "true",
    )


def _deployment(data: ConfigMap, minor: int) -> Deployment:
    image = data.text("queue-sidecar-image", data.text("queueSidecarImage"))
    if not image:
        raise SettingsError("config-deployment: queue-sidecar-image is missing")
    variables = {"ROOT_CA": "queue-sidecar-rootca"}
    if minor >= _QUEUE_TLS_SINCE:
        variables |= {
            "QUEUE_PROXY_TLS_MIN_VERSION": "queue-sidecar-tls-min-version",
            "QUEUE_PROXY_TLS_MAX_VERSION": "queue-sidecar-tls-max-version",
            "QUEUE_PROXY_TLS_CIPHER_SUITES": "queue-sidecar-tls-cipher-suites",
            "QUEUE_PROXY_TLS_CURVE_PREFERENCES": "queue-sidecar-tls-curve-preferences",
        }
    audiences = {part.strip() for part in data.text("queue-sidecar-token-audiences").split(",")} - {""}
    return Deployment(image, tuple(sorted(audiences)), {name: data.text(key) for name, key in variables.items()})


def _features(data: ConfigMap) -> Features:
    return Features(
        autodetect_http2=data.flag("autodetect-http2") == "enabled",
        multi_container_probing=data.flag("multi-container-probing") == "enabled",
        secure_pod_defaults=data.flag("secure-pod-defaults", known=("allowrootbounded",)),
        mount_pod_info=data.flag("queueproxy.mount-podinfo"),
        pod_security_context=data.flag("kubernetes.podspec-securitycontext"),
    )


def _level(data: ConfigMap) -> str:
    level = data.text("loglevel.queueproxy").lower()
    if level and level not in _LEVELS:
        raise SettingsError(f"config-logging: loglevel.queueproxy is none of {', '.join(_LEVELS)}")
    return level


def _observability(data: ConfigMap) -> dict[str, Any]:
    tracing = {
        "protocol": data.text("tracing-protocol", "none"),
        "endpoint": data.text("tracing-endpoint"),
        "samplingRate": data.value("tracing-sampling-rate", parse_float, 0.0),
    }
    runtime = {
        "profiling": data.text("runtime-profiling", "disabled"),
        "exportInterval": data.value("runtime-export-interval", parse_duration, 15_000_000_000),
    }
    flags = {
        "EnableVarLogCollection": data.value("logging.enable-var-log-collection", parse_bool, False),
        "LoggingURLTemplate": data.text("logging.revision-url-template"),
        "enableRequestLog": data.value("logging.enable-request-log", parse_bool, False),
        "requestLogTemplate": data.text("logging.request-log-template", _REQUEST_LOG),
        "enableProbeRequestLog": data.value("logging.enable-probe-request-log", parse_bool, False),
    }
    return {
        "tracing": without_zeros(tracing),
        "metrics": _metrics(data, ""),
        "runtime": without_zeros(runtime),
        "requestMetrics": _metrics(data, "request-"),
        **without_zeros(flags),
    }


def _metrics(data: ConfigMap, prefix: str) -> dict[str, Any]:
    return without_zeros(
        {
            "protocol": data.text(f"{prefix}metrics-protocol", "none"),
            "endpoint": data.text(f"{prefix}metrics-endpoint"),
            "exportInterval": data.value(f"{prefix}metrics-export-interval", parse_duration, 0),
        }
    )
