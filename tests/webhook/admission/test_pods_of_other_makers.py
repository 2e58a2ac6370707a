"""Pods as KServe, Eventing's ContainerSource and `func` make them, in every mode.

Written from their sources, at these commits:

- KServe 0217bda, `pkg/utils/storage.go`, `pkg/webhook/admission/pod/storage_initializer_injector.go` and
  `pkg/credentials/s3/s3_secret.go`: its webhook adds `storage-initializer` to a Knative pod, with the credentials.
- Eventing 73475f0, `pkg/reconciler/containersource/resources/deployment.go` (labels: 9ea1d54, `labels.go` beside it),
  and 03fdb33, `pkg/apis/sources/v1/sinkbinding_lifecycle.go`: the author's template with variables of the sink, and
  with OIDC a Secret mounted at /oidc.
- func 025c457, `pkg/knative/deployer.go`: a Service whose image has the entrypoint, so without `command`.
"""

from __future__ import annotations

import copy
from typing import Any

import jsonpatch
import pytest

from tests.webhook.admission.created_pods import decide_pod
from webhook.modes import Mode

Json = dict[str, Any]
_IMAGE = "r.example/app@sha256:" + "0123456789abcdef" * 4
_INIT = "morphisms-init"
_OWN_SECRET = {"morphisms.dev/secret-db": "~/db#password"}
_KNATIVE_LABELS = {"serving.knative.dev/service": "app", "serving.knative.dev/revision": "app-00001"}
_QUEUE_PROXY = {"name": "queue-proxy", "image": _IMAGE, "ports": [{"name": "queue-port", "containerPort": 8012}]}
_MODEL = {"name": "kserve-provision-location", "mountPath": "/mnt/models"}
_STORAGE = {
    "name": "storage-initializer",
    "image": _IMAGE,
    "args": ["s3://models/sklearn/iris", "/mnt/models"],
    "terminationMessagePolicy": "FallbackToLogsOnError",
    "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "100m", "memory": "100Mi"}},
    "env": [
        {"name": "HF_HUB_ENABLE_HF_TRANSFER", "value": "1"},
        {"name": "HF_XET_HIGH_PERFORMANCE", "value": "1"},
        {"name": "HF_XET_NUM_CONCURRENT_RANGE_GETS", "value": "8"},
    ],
    "volumeMounts": [_MODEL],
}
# The text of a certificate, which the rules for plain secrets must not take for a key.
_CERTIFICATE = (
    "-----BEGIN CERTIFICATE-----\nMIIBdjCCAR2gAwIBAgIUQ3Jvc3MtY2x1c3Rlci1zaW5rMAoG\n-----END CERTIFICATE-----\n"
)
_SINK = [
    {"name": "K_SINK", "value": "https://broker-ingress.knative-eventing.svc.cluster.local/shop/default"},
    {"name": "K_CA_CERTS", "value": _CERTIFICATE},
    {"name": "K_CE_OVERRIDES", "value": '{"extensions":{"region":"north"}}'},
]


def _pod(*containers: Json, labels: dict[str, str], annotations: dict[str, str] | None = None, **spec: Any) -> Json:
    metadata = {"generateName": "app-", "labels": labels, "annotations": annotations or {}}
    spec = {"serviceAccountName": "default", "containers": [*containers], **spec}
    return copy.deepcopy({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})


def _predictor(**storage: Any) -> Json:
    """An InferenceService's predictor: Knative's pod, whose container KServe names and whose model KServe fetches."""
    serving = {
        "name": "kserve-container",
        "image": _IMAGE,
        "args": ["--model_name=iris", "--model_dir=/mnt/models", "--http_port=8080"],
        "ports": [{"name": "user-port", "containerPort": 8080}],
        "volumeMounts": [{**_MODEL, "readOnly": True}],
    }
    annotations = {"internal.serving.kserve.io/storage-initializer-sourceuri": "s3://models/sklearn/iris"}
    return _pod(
        serving,
        _QUEUE_PROXY,
        labels={**_KNATIVE_LABELS, "serving.kserve.io/inferenceservice": "iris"},
        annotations=annotations,
        initContainers=[{**_STORAGE, **storage}],
        volumes=[{"name": "kserve-provision-location", "emptyDir": {}}],
    )


def _source(**spec: Any) -> Json:
    """A ContainerSource's pod, with what its SinkBinding adds."""
    labels = {
        "sources.knative.dev/source": "container-source-controller",
        "sources.knative.dev/containerSource": "heartbeats",
    }
    mounts = [{"name": volume["name"], "mountPath": "/oidc"} for volume in spec.get("volumes", ())]
    container = {"name": "heartbeats", "image": _IMAGE, "args": ["--period=1"], "env": _SINK, "volumeMounts": mounts}
    return _pod(container, labels=labels, **spec)


def _function(*env: Json) -> Json:
    """A function's pod; Dapr's annotations are there whether or not Dapr is."""
    container = {
        "name": "user-container",
        "image": _IMAGE,
        "ports": [{"name": "user-port", "containerPort": 8080}],
        "env": [{"name": "BUILT", "value": "20261127T051400"}, {"name": "ADDRESS", "value": "0.0.0.0"}, *env],
        "livenessProbe": {"httpGet": {"path": "/health/liveness", "port": 8080}},
        "securityContext": {
            "runAsNonRoot": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    dapr = {"dapr.io/app-id": "app", "dapr.io/enabled": "true", "dapr.io/app-port": "8080"}
    return _pod(container, _QUEUE_PROXY, labels=_KNATIVE_LABELS, annotations=dapr)


def _secret_key(name: str, key: str) -> Json:
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": "theirs", "key": key}}}


_OIDC = {"name": "oidc-token", "projected": {"sources": [{"secret": {"name": "heartbeats-oidc"}}]}}
_S3 = [*_STORAGE["env"], _secret_key("AWS_ACCESS_KEY_ID", "awsAccessKeyID")]
_SHAPES = {"KServe": _predictor(), "ContainerSource": _source(), "func": _function()}
_WITH_SECRETS = {
    "KServe with S3 credentials": _predictor(env=_S3),
    "ContainerSource with OIDC": _source(volumes=[_OIDC]),
    "func with a Secret's key": _function(_secret_key("API_KEY", "key")),
}


def _injected(pod: Json, mode: Mode) -> Json:
    found: Json = jsonpatch.apply_patch(pod, list(decide_pod(pod, "/mutate/pod", mode).operations))
    return found


def _with(pod: Json, annotations: dict[str, str]) -> Json:
    changed = copy.deepcopy(pod)
    changed["metadata"]["annotations"] |= annotations
    return changed


def _mounts(pod: Json) -> dict[str, set[str]]:
    """Names of our volumes that each container mounts."""
    return {
        each["name"]: {
            mount["name"] for mount in each.get("volumeMounts", ()) if mount["name"].startswith("morphisms-")
        }
        for each in (*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"])
    }


@pytest.mark.parametrize("maker", _SHAPES)
@pytest.mark.parametrize(
    ("mode", "outcome"),
    [
        (Mode.ABSENT, "unchanged"),
        (Mode.AUDIT, "unchanged"),
        (Mode.INJECT, "mutated"),
        (Mode.ENFORCE, "mutated"),
    ],
)
def test_the_mode_alone_decides_about_a_pod_that_names_no_secret(maker: str, mode: Mode, outcome: str) -> None:
    """None of what these makers add looks like a secret, nor like an opt-in."""
    assert decide_pod(_SHAPES[maker], "/mutate/pod", mode).outcome == outcome
    decision = decide_pod(_injected(_SHAPES[maker], mode), "/validate/pod", mode)
    assert decision.allowed
    by_injection = {"placement/runtime-class", "placement/node-affinity", "secrets/init-container"}
    assert {each.rule.id for each in decision.violations} == (by_injection if mode is Mode.AUDIT else set())


@pytest.mark.parametrize("maker", _SHAPES)
def test_its_guest_is_attested_before_anything_that_the_maker_adds(maker: str) -> None:
    pod = _injected(_SHAPES[maker], Mode.ENFORCE)
    assert pod["spec"]["initContainers"][0]["name"] == _INIT
    assert pod["spec"]["initContainers"][1:] == _SHAPES[maker]["spec"].get("initContainers", [])
    assert {name for name, volumes in _mounts(pod).items() if volumes} == {_INIT}


@pytest.mark.parametrize("mode", [Mode.AUDIT, Mode.INJECT, Mode.ENFORCE])
@pytest.mark.parametrize(("maker", "serving"), [("KServe", "kserve-container"), ("func", "user-container")])
def test_the_serving_container_alone_gets_the_services_secret(maker: str, serving: str, mode: Mode) -> None:
    """KServe's own init container, which fetches a model from elsewhere, does not."""
    pod = _injected(_with(_SHAPES[maker], _OWN_SECRET), mode)
    assert {name for name, volumes in _mounts(pod).items() if volumes} == {_INIT, serving}
    assert _mounts(pod)[serving] == {"morphisms-secrets"}
    decision = decide_pod(pod, "/validate/pod", mode)
    assert decision.allowed
    assert decision.violations == ()


def test_an_author_of_a_container_source_writes_the_whole_path() -> None:
    """It belongs to no Knative Service, so `~/` has no meaning there."""
    denied = decide_pod(_with(_SHAPES["ContainerSource"], _OWN_SECRET), "/mutate/pod", Mode.INJECT)
    assert "secrets/annotations" in {each.rule.id for each in denied.violations}
    assert denied.outcome == "denied"
    whole = {"morphisms.dev/secret-db": "secret/shop/heartbeats#password"}
    pod = _injected(_with(_SHAPES["ContainerSource"], whole), Mode.INJECT)
    assert _mounts(pod)["heartbeats"] == {"morphisms-secrets"}
    assert pod["spec"]["containers"][0]["args"] == ["--period=1"]


def test_a_function_has_no_command_and_is_told_to_add_one_for_a_variable() -> None:
    function = _function({"name": "API_KEY", "value": "vault:~/api#key"})
    for mode in (Mode.AUDIT, Mode.INJECT, Mode.ENFORCE):
        decision = decide_pod(function, "/mutate/pod", mode)
        assert decision.outcome == "denied"
        assert any(each.field == "spec.containers[0].command" for each in decision.violations)


@pytest.mark.parametrize(
    ("maker", "rule"),
    [
        ("KServe with S3 credentials", "secrets/kubernetes-secret-env"),
        ("ContainerSource with OIDC", "secrets/kubernetes-secret-volume"),
        ("func with a Secret's key", "secrets/kubernetes-secret-env"),
    ],
)
def test_a_kubernetes_secret_that_the_maker_adds_is_recorded_and_in_enforce_denied(maker: str, rule: str) -> None:
    for mode in (Mode.AUDIT, Mode.INJECT, Mode.ENFORCE):
        decision = decide_pod(_injected(_WITH_SECRETS[maker], mode), "/validate/pod", mode)
        assert rule in {each.rule.id for each in decision.violations}
        assert decision.allowed == (mode is not Mode.ENFORCE)
