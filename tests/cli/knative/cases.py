"""Services and settings whose pods Knative's own functions made: one Deployment a line of `golden/1.N.jsonl`, in order.

`python -m tests.cli.knative.golden` makes them anew.
"""

from __future__ import annotations

from typing import Any, Final

APP: Final = f"registry.test/app@sha256:{'a' * 64}"
SIDE: Final = f"registry.test/side@sha256:{'b' * 64}"
QUEUE: Final = f"registry.test/queue@sha256:{'c' * 64}"
SYSTEM: Final = "knative-serving"


def _service(spec: dict[str, Any], annotations: dict[str, str] | None = None, name: str = "payments") -> dict[str, Any]:
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {
            "template": {
                "metadata": {"name": f"{name}-0123456789", "annotations": annotations or {}, "labels": {"team": "a"}},
                "spec": spec,
            }
        },
    }


_PLAIN: Final = {"containers": [{"image": APP}]}

CASES: Final[dict[str, tuple[dict[str, Any], dict[str, dict[str, str]]]]] = {
    "plain": (_service(_PLAIN), {}),
    "long-name": (_service(_PLAIN, name="p" * 50), {}),
    "everything-of-a-container": (
        _service(
            {
                "containerConcurrency": 7,
                "timeoutSeconds": 60,
                "responseStartTimeoutSeconds": 10,
                "idleTimeoutSeconds": 20,
                "serviceAccountName": "payments",
                "containers": [
                    {
                        "name": "app",
                        "image": APP,
                        "command": ["/app"],
                        "args": ["--x", "$(A)"],
                        "workingDir": "/srv",
                        "ports": [{"name": "h2c", "containerPort": 9000}],
                        "env": [{"name": "A", "value": "1"}, {"name": "EMPTY"}],
                        "securityContext": {"runAsUser": 1000, "readOnlyRootFilesystem": True},
                        "readinessProbe": {
                            "httpGet": {"path": "/ok?a=<b>&c", "httpHeaders": [{"name": "X", "value": "y"}]}
                        },
                        "livenessProbe": {"httpGet": {"path": "/live"}},
                        "volumeMounts": [
                            {"name": "settings", "mountPath": "/etc/settings"},
                            {"name": "scratch", "mountPath": "/scratch"},
                        ],
                    }
                ],
                "volumes": [
                    {"name": "settings", "configMap": {"name": "settings"}},
                    {"name": "scratch", "emptyDir": {}},
                ],
            },
            {"autoscaling.knative.dev/min-scale": "1", "example.com/note": "x", "morphisms.dev/inject": "true"},
        ),
        {},
    ),
    "several-containers": (
        _service(
            {
                "containers": [
                    {"image": APP, "ports": [{"containerPort": 8081}], "readinessProbe": {"periodSeconds": 3}},
                    {"image": SIDE, "readinessProbe": {"tcpSocket": {"port": 7000}}},
                    {"name": "third", "image": SIDE},
                ]
            }
        ),
        {},
    ),
    "several-containers-probed": (
        _service(
            {
                "containers": [
                    {"image": APP, "ports": [{"containerPort": 8081}], "readinessProbe": {"httpGet": {"port": 8082}}},
                    {"image": SIDE, "readinessProbe": {"tcpSocket": {"port": 7000}, "periodSeconds": 5}},
                    {"image": SIDE, "readinessProbe": {"grpc": {"port": 7001}}},
                ]
            }
        ),
        {"config-features": {"multi-container-probing": "enabled"}},
    ),
    "grpc-readiness": (
        _service({"containers": [{"image": APP, "readinessProbe": {"grpc": {"port": 50051, "service": "s"}}}]}),
        {},
    ),
    "defaults": (
        _service(_PLAIN),
        {
            "config-defaults": {
                "revision-timeout-seconds": "120",
                "revision-response-start-timeout-seconds": "30",
                "revision-idle-timeout-seconds": "15",
                "container-concurrency": "5",
                "container-name-template": "main",
                "enable-service-links": "true",
            }
        },
    ),
    "secure-pods": (
        _service({"containers": [{"image": APP, "ports": [{"containerPort": 80}]}]}),
        {"config-features": {"secure-pod-defaults": "enabled", "autodetect-http2": "Enabled"}},
    ),
    "queue-proxy": (
        _service(
            _PLAIN,
            {"features.knative.dev/http-full-duplex": "Enabled", "features.knative.dev/queueproxy-podinfo": "enabled"},
        ),
        {
            "config-deployment": {"queue-sidecar-token-audiences": "b, a", "queue-sidecar-rootca": "-----CA-----\n"},
            "config-features": {"queueproxy.mount-podinfo": "allowed"},
            "config-network": {"system-internal-tls": "Enabled"},
            "config-logging": {"zap-logger-config": '{"level": "info"}', "loglevel.queueproxy": "DEBUG"},
        },
    ),
    "observability": (
        _service(_PLAIN),
        {
            "config-observability": {
                "tracing-protocol": "grpc",
                "tracing-endpoint": "otel:4317",
                "tracing-sampling-rate": "0.25",
                "metrics-protocol": "http/protobuf",
                "metrics-endpoint": "http://otel:4318/x?a=<b>",
                "metrics-export-interval": "1m30s",
                "request-metrics-protocol": "prometheus",
                "request-metrics-export-interval": "500ms",
                "runtime-profiling": "enabled",
                "runtime-export-interval": "0s",
                "logging.enable-request-log": "true",
                "logging.request-log-template": "{{.Request.Method}} \u2028 <é>",
                "logging.enable-probe-request-log": "t",
                "logging.revision-url-template": "http://logs/${REVISION_UID}",
            }
        },
    ),
    "var-log": (_service(_PLAIN), {"config-observability": {"logging.enable-var-log-collection": "true"}}),
    "small-rate": (
        _service(_PLAIN),
        {"config-observability": {"tracing-protocol": "stdout", "tracing-sampling-rate": "0.0000001"}},
    ),
}


def inputs() -> list[dict[str, Any]]:
    """Each case as the Go program takes it."""
    found = []
    for service, changes in CASES.values():
        maps = {name: dict(data) for name, data in changes.items()}
        maps.setdefault("config-deployment", {})["queue-sidecar-image"] = QUEUE
        found.append({"systemNamespace": SYSTEM, "configMaps": maps, "service": service})
    return found
