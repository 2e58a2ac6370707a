"""What is read as trouble, from objects as kubelets and controllers write them, and as an attacker may write them."""

from __future__ import annotations

from typing import Any

import pytest

from webhook.scanner.events.trouble import (
    DENIED,
    INIT_FAILED,
    Trouble,
    trouble_of_event,
    trouble_of_pod,
    trouble_of_replica_set,
)
from webhook.scanner.finding import ObjectId

Json = dict[str, Any]

_REFUSED = "morphisms-init: the verifier refused this guest or its pod [verifier-refused, correlation id 4f-1]"
_DENIAL = (
    'pods "web-5d9f-x" is forbidden: admission webhook "validate-pod.enforce.morphisms.dev" denied the request:'
    " [isolation/host-path] use another volume; [images/digest] pin the image"
)


def _ended(code: int = 12, message: str = _REFUSED, **more: Any) -> Json:
    return {"terminated": {"exitCode": code, "message": message, "finishedAt": "2027-01-01T00:00:05Z", **more}}


def _pod(state: Json, last: Json | None = None, *, name: str = "morphisms-init", **metadata: Any) -> Json:
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-5d9f", "uid": "u-2", "controller": True}
    return {
        "metadata": {
            "name": "web-5d9f-x",
            "namespace": "shop",
            "uid": "u-1",
            "labels": {"serving.knative.dev/service": "web"},
            "ownerReferences": [owner],
            **metadata,
        },
        "status": {
            "initContainerStatuses": [
                {"name": "istio-init", "state": _ended(0)},
                {"name": name, "state": state, "lastState": last or {}},
            ]
        },
    }


def _replica_set(message: str, status: str = "True") -> Json:
    condition = {
        "type": "ReplicaFailure",
        "status": status,
        "message": message,
        "lastTransitionTime": "2027-01-01T00:00:00Z",
    }
    return {"metadata": {"name": "web-5d9f", "namespace": "shop", "uid": "u-2"}, "status": {"conditions": [condition]}}


def test_a_pod_that_was_refused_says_why_whose_it_is_and_the_correlation_id() -> None:
    assert trouble_of_pod(_pod(_ended())) == Trouble(
        INIT_FAILED,
        "verifier-refused",
        _REFUSED,
        ObjectId("v1", "Pod", "shop", "web-5d9f-x", "u-1"),
        ObjectId("apps/v1", "ReplicaSet", "shop", "web-5d9f", "u-2"),
        "web",
        "2027-01-01T00:00:05Z",
        "4f-1",
    )


@pytest.mark.parametrize(
    ("state", "last", "code"),
    [
        pytest.param(_ended(), None, "verifier-refused", id="ended"),
        pytest.param(
            {"waiting": {"reason": "CrashLoopBackOff"}}, _ended(), "verifier-refused", id="waits-to-try-again"
        ),
        pytest.param(_ended(message="x [deadline]"), None, "deadline", id="without-correlation-id"),
        pytest.param(_ended(137, "", reason="OOMKilled"), None, "oom-killed", id="out-of-memory"),
        pytest.param(_ended(1, ""), None, "error", id="nothing-said"),
        pytest.param({"waiting": {"reason": "ImagePullBackOff"}}, None, "image-pull", id="no-image"),
        pytest.param({"running": {}}, _ended(), None, id="tries-again"),
        pytest.param({"waiting": {"reason": "PodInitializing"}}, None, None, id="not-begun"),
        pytest.param(_ended(0, ""), None, None, id="published"),
        pytest.param(_ended(143, ""), None, None, id="stopped"),
        pytest.param({}, None, None, id="nothing-known"),
        pytest.param({"terminated": "yes"}, 5, None, id="nonsense"),
    ],
)
def test_a_pod_is_in_trouble_just_while_its_init_container_has_failed(state: Json, last: Any, code: str | None) -> None:
    found = trouble_of_pod(_pod(state, last))
    assert (found.code if found else None) == code


@pytest.mark.parametrize(
    ("phase", "code"), [("Pending", "verifier-refused"), ("Running", None), ("Succeeded", None), (5, None)]
)
def test_a_failure_before_the_application_starts_is_told_also_while_the_next_try_runs(
    phase: Any, code: str | None
) -> None:
    """A busy kubelet reports both at once. Beside an application that runs, a sidecar that came back is no trouble."""
    pod = _pod({"running": {"startedAt": "2027-01-01T00:00:06Z"}}, _ended())
    pod["status"]["phase"] = phase
    found = trouble_of_pod(pod)
    assert (found.code if found else None) == code
    [_, status] = pod["status"]["initContainerStatuses"]
    # A native sidecar that has published since, while another image is pulled.
    status["started"] = True
    pod["spec"] = {"initContainers": [{"name": "morphisms-init", "restartPolicy": "Always"}]}
    assert trouble_of_pod(pod) is None
    status["started"] = False
    found = trouble_of_pod(pod)
    assert (found.code if found else None) == code
    status["lastState"] = {}
    assert trouble_of_pod(pod) is None


def test_another_init_container_and_a_pod_that_goes_are_no_trouble_of_ours() -> None:
    assert trouble_of_pod(_pod(_ended(), name="migrate")) is None
    assert trouble_of_pod(_pod(_ended(), deletionTimestamp="2027-01-01T00:00:00Z")) is None


@pytest.mark.parametrize(
    ("message", "code", "shown"),
    [
        pytest.param(
            _DENIAL, "isolation/host-path,images/digest", "[isolation/host-path] use another volume", id="rules"
        ),
        pytest.param(
            "pods is forbidden: ValidatingAdmissionPolicy 'injection-present.morphisms.dev' with binding"
            " 'injection-present.morphisms.dev' denied request: the pod has no morphisms-init",
            "injection-present",
            "the pod has no morphisms-init",
            id="guard",
        ),
        pytest.param(
            'Internal error occurred: failed calling webhook "mutate-pod.enforce.morphisms.dev": failed to call'
            ' webhook: Post "https://10.0.0.7:8443/mutate/pod": connect: connection refused',
            "webhook-unreachable",
            "does not answer",
            id="webhook-away",
        ),
        pytest.param('admission webhook "policy.example.org" denied the request: no', None, "", id="anothers"),
        pytest.param("exceeded quota: compute", None, "", id="quota"),
    ],
)
def test_a_denial_of_ours_is_told_from_others(message: str, code: str | None, shown: str) -> None:
    found = trouble_of_replica_set(_replica_set(message))
    assert (found.code if found else None) == code
    assert found is None or (found.reason == DENIED and shown in found.message)
    assert found is None or "10.0.0.7" not in found.message
    assert trouble_of_replica_set(_replica_set(message, status="False")) is None
    about = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "namespace": "shop", "name": "web-5d9f", "uid": "u-2"}
    event = {
        "reason": "FailedCreate",
        "message": message,
        "involvedObject": about,
        "lastTimestamp": "2027-01-01T00:00:00Z",
    }
    told = trouble_of_event(event)
    assert (told.code if told else None) == code
    assert trouble_of_event({**event, "involvedObject": {**about, "kind": "Job"}}) is None
    assert trouble_of_event({**event, "reason": "Scheduled"}) is None


def test_what_an_author_writes_cannot_steer_a_terminal_or_fill_etcd() -> None:
    """Everybody who may create pods can write the termination message of a container with our name."""
    found = trouble_of_pod(_pod(_ended(message="\x1b[2J fake\r\nWarning  Hacked [verifier-refused]\n" + "x" * 9000)))
    assert found is not None
    assert found.message.isprintable()
    assert len(found.message) <= 1000
    hostile = _pod(_ended(message="x [a" + "-a" * 5000 + "]"))
    hostile["metadata"]["ownerReferences"] = "none"
    hostile["metadata"]["labels"] = 5
    found = trouble_of_pod(hostile)
    assert found is not None
    assert (found.owner, found.service, found.code) == (None, "", "error")
