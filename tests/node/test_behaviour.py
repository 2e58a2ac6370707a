"""What a kubelet makes of injected pods: a missing secret, tokens given back, rotation, and who may look inside.

Evidence is simulated, and the runtime class is plain runc.
"""

from __future__ import annotations

import pytest

from tests.cluster.client import Object
from tests.cluster.conditions import holds
from tests.node.services import RESTRICTED_NAMESPACE, digest, service
from tests.node.stack import Stack, initial_message
from tests.support.until import until

pytestmark = pytest.mark.node

NAMESPACE = "desk"
_PATIENCE_SECONDS = 600.0
_KEPT = f"knative/cluster/{NAMESPACE}/kept/db"
_FILE = {"FILES": "/morphisms/secrets/db"}
_SECRET = {"morphisms.dev/secret-db": "~/db#password"}


@pytest.fixture(scope="module")
def desk(stack: Stack) -> Stack:
    """A namespace in enforce, whose pods may be restricted ones only."""
    stack.namespace(NAMESPACE, {"morphisms.dev/mode": "enforce", **RESTRICTED_NAMESPACE})
    return stack


def test_a_secret_that_is_missing_is_named_by_the_pod_and_nothing_starts(desk: Stack) -> None:
    desk.apply(service(desk.application.pinned, f"{NAMESPACE}/forgotten", _SECRET, env=_FILE))

    def told(pods: list[Object]) -> tuple[Object, str] | None:
        return next(((pod, text) for pod in pods if (text := initial_message(pod))), None)

    path = f"/api/v1/namespaces/{NAMESPACE}/pods"
    pod, message = desk.admin.until(path, told, seconds=_PATIENCE_SECONDS)
    assert "[secret-missing, " in message
    assert "secret/knative/cluster/desk/forgotten/db" in message
    assert all("running" not in status["state"] for status in pod["status"]["containerStatuses"])
    # Once it is written, the next try of the same pod has it.
    desk.morphisms.write_secret(f"knative/cluster/{NAMESPACE}/forgotten/db", password="written late")
    desk.ready_pod(NAMESPACE, "forgotten", seconds=_PATIENCE_SECONDS)
    answer = desk.request(NAMESPACE, "forgotten-00001")
    assert answer.content["files"] == {"/morphisms/secrets/db": digest("written late")}


def test_pods_of_agent_init_leave_no_token(desk: Stack) -> None:
    desk.morphisms.write_secret(f"knative/cluster/{NAMESPACE}/many/db", password="of many")
    scale = {"autoscaling.knative.dev/initial-scale": "4"}
    desk.apply(service(desk.application.pinned, f"{NAMESPACE}/many", {**_SECRET, **scale}, env=_FILE))

    def four(pods: list[Object]) -> bool:
        return len([pod for pod in pods if holds(pod, "Initialized")]) >= 4

    label = "serving.knative.dev/service=many"
    path = f"/api/v1/namespaces/{NAMESPACE}/pods"
    desk.admin.until(path, four, seconds=_PATIENCE_SECONDS, labelSelector=label)
    assert desk.tokens(NAMESPACE, "many") == 0


@pytest.fixture(scope="module")
def kept(desk: Stack) -> Object:
    """The one pod of a Service that keeps renewing, ready."""
    desk.morphisms.write_secret(_KEPT, password="first")
    annotations = {
        **_SECRET,
        "morphisms.dev/agent": "sidecar",
        "autoscaling.knative.dev/min-scale": "1",
    }
    desk.apply(service(desk.application.pinned, f"{NAMESPACE}/kept", annotations, env=_FILE))
    return desk.ready_pod(NAMESPACE, "kept", seconds=_PATIENCE_SECONDS)


def test_a_native_sidecar_stays_beside_the_application(desk: Stack, kept: Object) -> None:
    assert _seen(desk) == digest("first")
    (init,) = kept["status"]["initContainerStatuses"]
    assert (init["name"], init["started"], "running" in init["state"]) == ("morphisms-init", True, True)


def test_a_running_application_sees_a_rotated_secret(desk: Stack, kept: Object) -> None:
    """The tier's configuration says `rereadSeconds: 5`."""
    desk.morphisms.write_secret(_KEPT, password="second")
    until(lambda: _seen(desk) == digest("second"), 2 * _PATIENCE_SECONDS)
    (same,) = desk.pods(NAMESPACE, "kept")
    assert same["metadata"]["uid"] == kept["metadata"]["uid"]
    assert all(status["restartCount"] == 0 for status in same["status"]["containerStatuses"])


@pytest.mark.parametrize("command", [["exec", "POD", "-c", "user-container", "--", "/application"], ["attach", "POD"]])
def test_no_one_looks_inside_a_pod_in_enforce(desk: Stack, kept: Object, command: list[str]) -> None:
    words = [kept["metadata"]["name"] if word == "POD" else word for word in command]
    done = desk.admin.kubectl("-n", NAMESPACE, *words, check=False)
    assert done.code != 0
    assert "isolation/exec" in done.err


def _seen(desk: Stack) -> str:
    answer = desk.request(NAMESPACE, "kept-00001")
    return str(answer.content["files"]["/morphisms/secrets/db"]) if answer.status == 200 else ""
