"""Ordinary Knative Services of every kind that can be measured, with the configurations of their images.

Ordinary: what an author may write and `morphisms render` has to take, without a line to change.
"""

from __future__ import annotations

import string
from typing import Any

from hypothesis import strategies as st

from tests.cli import rendering

Service = dict[str, Any]

_NAMES = st.sampled_from(["A", "B", "COLOUR", "lower_case", "WITH.DOT", "X9", "DB_URL", "TERM", "LD_PRELOAD"])
_TEXT = st.text(
    alphabet=st.one_of(st.sampled_from(string.printable.replace("$", "")), st.sampled_from("é💥\u2028\x7f'\"\\{}\n")),
    max_size=40,
)
_VALUES = st.one_of(
    _TEXT,
    st.sampled_from(
        ["", "a=b=c", "$$(HOME)", "$$", "it's '''quoted'''", "x" * 3000, "%d%s", '{"a": [1]}', "\n", "a\n"]
    ),
)
_PATHS = st.sampled_from(["/data", "/etc/settings", "/var/cache/app", "/srv/tmp", "/run/shared", "/dev/shm"])
_FIELDS = st.sampled_from(
    [
        "metadata.name",
        "metadata.namespace",
        "metadata.uid",
        "status.podIP",
        "status.hostIP",
        "spec.nodeName",
        "spec.serviceAccountName",
    ]
)
_VOLUMES = {
    "memory": {"emptyDir": {"medium": "Memory"}},
    "disk": {"emptyDir": {}},
    "settings": {"configMap": {"name": "settings"}},
    "own-secret": {"secret": {"secretName": "s"}},
    "both": {"projected": {"sources": [{"configMap": {"name": "settings"}}]}},
    "about": {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
}
_PROBES = st.sampled_from(
    [
        {"httpGet": {"path": "/ok?a=<b>&c", "port": 8080}, "periodSeconds": 3},
        {"tcpSocket": {"port": 8080}},
        {"grpc": {"port": 8080}},
    ]
)
_CAPABILITIES = st.sampled_from(
    [
        {"drop": ["ALL"]},
        {"add": ["NET_BIND_SERVICE"], "drop": ["ALL"]},
        {"drop": ["NET_RAW", "MKNOD"]},
        {"add": ["SYS_TIME"]},
    ]
)
_SECURITY = st.fixed_dictionaries(
    {},
    optional={
        "runAsUser": st.integers(0, 2**31 - 1),
        "runAsGroup": st.integers(0, 2**31 - 1),
        "allowPrivilegeEscalation": st.booleans(),
        "readOnlyRootFilesystem": st.booleans(),
        "capabilities": _CAPABILITIES,
        "runAsNonRoot": st.just(False),
    },
)
_IMAGES = st.fixed_dictionaries(
    {"Entrypoint": st.lists(_VALUES.filter(bool), min_size=1, max_size=2)},
    optional={
        "Env": st.sampled_from([[], ["PATH=/bin:/usr/bin"], ["LANG=C.UTF-8", "EMPTY="], ["PATH=/x", "IMAGE=a=b\nc"]]),
        "Cmd": st.lists(_VALUES, max_size=2),
        "User": st.sampled_from(["", "0", "1000", "65532:65532", "1000:50"]),
        "WorkingDir": st.sampled_from(["", "/srv", "/a b"]),
    },
)
_ANNOTATIONS = st.fixed_dictionaries(
    {},
    optional={
        "morphisms.dev/agent": st.sampled_from(["init", "sidecar"]),
        "morphisms.dev/secret-tls": st.just("~/tls#certificate"),
        "morphisms.dev/mode-tls": st.just("0440"),
        "morphisms.dev/secret-config": st.just("~/app"),
        "morphisms.dev/template-config": st.just("user = {{ user }}\npassword = {{ password }} $(HOME)\n"),
        "morphisms.dev/file-config": st.just("etc/app.conf"),
        "morphisms.dev/env-from": st.just("~/all"),
        "morphisms.dev/vault-role": st.just("payments"),
        "autoscaling.knative.dev/min-scale": st.just("1"),
        "example.com/note": _TEXT,
    },
)
_REFERENCES = st.sampled_from(
    [
        "vault:~/db#password",
        "vault:~/db#password@2",
        "postgres://u:${vault:~/db#password}@h/db",
        "vault:secret/knative/prod/x#y",
    ]
)


@st.composite
def services(draw: st.DrawFn) -> tuple[Service, dict[str, dict[str, Any]]]:
    """A Service that opts in, and its images' configurations by reference."""
    images = {rendering.QUEUE: rendering.CONFIGURATIONS[rendering.QUEUE]}
    images[rendering.SIDECAR] = rendering.CONFIGURATIONS[rendering.SIDECAR]
    volumes = draw(st.lists(st.sampled_from(sorted(_VOLUMES)), unique=True, max_size=3))
    containers = []
    count = draw(st.integers(1, 3))
    for number in range(count):
        reference = f"registry.test/app{number}{draw(st.sampled_from(['', ':v1']))}@sha256:{'abe'[number] * 64}"
        images[reference] = draw(_IMAGES)
        containers.append(draw(_container(reference, images[reference], volumes)))
        if count > 1:
            containers[-1]["name"] = f"c{number}"
    if count > 1:
        containers[0]["ports"] = [{"containerPort": draw(st.sampled_from([80, 9000]))}]
    annotations = {"morphisms.dev/inject": "true", **draw(_ANNOTATIONS)}
    if "morphisms.dev/secret-config" not in annotations:
        annotations = {key: value for key, value in annotations.items() if not key.endswith("-config")}
    if "morphisms.dev/secret-tls" not in annotations:
        annotations.pop("morphisms.dev/mode-tls", None)
    spec: dict[str, Any] = {"containers": containers}
    if volumes:
        spec["volumes"] = [{"name": name, **_VOLUMES[name]} for name in volumes]
    optional = {
        "serviceAccountName": st.sampled_from(["payments", "default"]),
        "automountServiceAccountToken": st.booleans(),
        "containerConcurrency": st.integers(0, 10),
        "timeoutSeconds": st.integers(1, 600),
        "securityContext": st.fixed_dictionaries({"fsGroup": st.integers(0, 70_000)}),
    }
    spec |= draw(st.fixed_dictionaries({}, optional=optional))
    name = draw(st.sampled_from(["payments", "p", "a" * 52]))
    service = {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"template": {"metadata": {"annotations": annotations, "labels": {"team": "a"}}, "spec": spec}},
    }
    return service, images


@st.composite
def _container(draw: st.DrawFn, image: str, config: dict[str, Any], volumes: list[str]) -> dict[str, Any]:
    variables = draw(
        st.dictionaries(_NAMES, st.one_of(_VALUES, _FIELDS.map(lambda field: ("field", field))), max_size=4)
    )
    env: list[dict[str, Any]] = [
        {"name": name, "value": value}
        if isinstance(value, str)
        else {"name": name, "valueFrom": {"fieldRef": {"fieldPath": value[1]}}}
        for name, value in variables.items()
    ]
    plain = [name for name, value in variables.items() if isinstance(value, str)]
    if plain and draw(st.booleans()):
        env.append({"name": "EXPANDED", "value": f"<$({plain[0]})> $$({plain[0]})"})
    container: dict[str, Any] = {"image": image, "command": ["/app", draw(_VALUES)], "env": env}
    if draw(st.booleans()):
        env.append({"name": "FROM_VAULT", "value": draw(_REFERENCES)})
    container["args"] = draw(st.lists(_VALUES, max_size=2))
    optional = {
        "workingDir": st.sampled_from(["/srv", "/work dir"]),
        "livenessProbe": _PROBES,
        "readinessProbe": _PROBES,
        "securityContext": _SECURITY,
        "resources": st.just({"limits": {"cpu": "1", "memory": "1Gi"}}),
        "terminationMessagePath": st.just("/run/last-words"),
        "terminationMessagePolicy": st.sampled_from(["File", "FallbackToLogsOnError"]),
        "imagePullPolicy": st.just("Always"),
    }
    container |= draw(st.fixed_dictionaries({}, optional=optional))
    paths = draw(st.lists(_PATHS, unique=True, min_size=len(volumes), max_size=len(volumes)))
    container["volumeMounts"] = [
        {"name": name, "mountPath": path, "readOnly": True if name not in ("memory", "disk") else draw(st.booleans())}
        for name, path in zip(volumes, paths, strict=True)
    ]
    return container
