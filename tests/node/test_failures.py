"""What goes wrong on a node, as a developer sees it, and that a running application goes on.

Evidence is simulated, and the runtime class is plain runc.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from plan.layout import EXEC_HELPER, PLAN_VARIABLE
from tests.cluster.client import Object
from tests.cluster.conditions import holds
from tests.node.morphisms import WEBHOOK_NAMESPACE
from tests.node.services import digest, service
from tests.node.stack import Stack, initial_end
from tests.support.shown import Report
from tests.support.until import until

pytestmark = [pytest.mark.node, pytest.mark.slow]

NAMESPACE = "failing"
_WITHOUT_MODE = "failing-without-mode"
_HOME = f"knative/cluster/{NAMESPACE}"
_PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
_PATIENCE_SECONDS = 600.0
_SECRET = {"morphisms.dev/secret-db": "~/db#password"}
_FILE = "/morphisms/secrets/db"
_AT_REST_SECONDS = 10.0
_ONE_POD = {"autoscaling.knative.dev/min-scale": "1"}


@pytest.fixture(scope="module")
def failing(stack: Stack) -> Stack:
    """A namespace in inject, with a Service whose Revision gives up while others are tested."""
    stack.namespace(NAMESPACE, {"morphisms.dev/mode": "inject"})
    _apply(stack, "late", {"serving.knative.dev/progress-deadline": "120s"})
    return stack


def test_a_refusal_is_on_the_service_with_what_to_ask_the_operator(failing: Stack, report: Report) -> None:
    """The verifier has no record of this Service."""
    _apply(failing, "stranger")
    message = _told(failing, "stranger")
    assert "[verifier-refused, correlation id " in message
    _described(failing, "stranger", r"morphisms explain \w+ \[verifier-refused")
    _told_once_it_began(failing, "stranger", report)
    (pod,) = failing.pods(NAMESPACE, "stranger")
    assert all("running" not in status["state"] for status in pod["status"]["containerStatuses"])


def test_a_secret_that_is_missing_is_on_the_service(failing: Stack, report: Report) -> None:
    _apply(failing, "memory", _ONE_POD, password=None)
    assert "[secret-missing, " in _told(failing, "memory")
    _described(failing, "memory", rf"(?s)secret-missing.*{_HOME}/memory/db|{_HOME}/memory/db.*secret-missing")
    _told_once_it_began(failing, "memory", report)


def test_an_application_that_takes_too_much_memory_comes_back_with_its_secrets(failing: Stack) -> None:
    _apply(failing, "memory", _ONE_POD, password=None)
    failing.morphisms.write_secret(f"{_HOME}/memory/db", password="of memory")
    pod = failing.ready_pod(NAMESPACE, "memory", seconds=_PATIENCE_SECONDS)
    failing.request(NAMESPACE, "memory-00001", path="/?eat=200", seconds=_PATIENCE_SECONDS)

    def killed(pods: list[Object]) -> bool:
        return any(
            status["lastState"].get("terminated", {}).get("exitCode") == 128 + signal.SIGKILL
            for each in pods
            if each["metadata"]["uid"] == pod["metadata"]["uid"]
            for status in each["status"]["containerStatuses"]
        )

    failing.admin.until(_PODS, killed, seconds=_PATIENCE_SECONDS)
    until(lambda: _file(failing, "memory-00001") == digest("of memory"), _PATIENCE_SECONDS)


def test_a_plan_that_was_cut_short_is_named_and_nothing_starts(failing: Stack, report: Report) -> None:
    """In a manifest that holds its init container already, in a namespace without a mode: nothing injects it anew."""
    failing.namespace(_WITHOUT_MODE)
    bare = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "bare", "annotations": {"morphisms.dev/secret-db": "secret/a#b"}},
        "spec": {"containers": [{"name": "application", "image": failing.application.pinned}]},
    }
    (init,) = failing.admin.create(_PODS, bare, dryRun="All")["spec"]["initContainers"]
    (plan,) = [each for each in init["env"] if each["name"] == PLAN_VARIABLE]
    damaged = {key: init[key] for key in ("name", "image", "securityContext")}
    damaged["env"] = [{"name": PLAN_VARIABLE, "value": plan["value"][:-20]}]
    pod = {"initContainers": [damaged]}
    failing.apply(service(failing.application.pinned, f"{_WITHOUT_MODE}/damaged", {}, pod=pod))
    ended = _ended(failing, "damaged", _WITHOUT_MODE)
    message = ended["message"].rstrip()
    assert (ended["exitCode"], message.endswith("[plan]")) == (10, True), ended
    _described(failing, "damaged", re.escape(message), _WITHOUT_MODE)
    _told_once_it_began(failing, "damaged", report, _WITHOUT_MODE)
    (made,) = failing.pods(_WITHOUT_MODE, "damaged")
    assert all("running" not in status["state"] for status in made["status"]["containerStatuses"])


def test_a_sealed_vault_is_named_and_waited_for(failing: Stack, report: Report) -> None:
    key = failing.morphisms.unseal_key()
    failing.morphisms.write_secret(f"{_HOME}/sealed/db", password="of sealed")
    assert failing.morphisms.vault("PUT", "sys/seal")[0] == 204
    try:
        _apply(failing, "sealed", password=None)
        ended = _ended(failing, "sealed")
        assert "[verifier-vault-sealed" in ended["message"]
        _described(failing, "sealed", "verifier-vault-sealed")
        _told_once_it_began(failing, "sealed", report)
    finally:
        assert failing.morphisms.vault("PUT", "sys/unseal", {"key": key})[1]["sealed"] is False
    failing.ready_pod(NAMESPACE, "sealed", seconds=_PATIENCE_SECONDS)
    assert _file(failing, "sealed-00001") == digest("of sealed")


def test_a_verifier_that_swallows_packets_is_tried_again_and_named(failing: Stack, report: Report) -> None:
    """As a NetworkPolicy does, or a firewall: nothing refuses, nothing answers."""
    with failing.without_verifier():
        _apply(failing, "swallowed")
        # A line per try. A try that nothing bounds would take the whole deadline, so there would be none.
        until(lambda: _tries(failing, "swallowed") > 3, _PATIENCE_SECONDS)
        ended = _ended(failing, "swallowed")
        assert "[verifier-unreachable" in ended["message"]
        _described(failing, "swallowed", "verifier-unreachable")
        _told_once_it_began(failing, "swallowed", report)
    failing.ready_pod(NAMESPACE, "swallowed", seconds=_PATIENCE_SECONDS)
    assert _file(failing, "swallowed-00001") == digest("of swallowed")


def test_the_reason_outlives_the_pod_that_knative_deletes_at_its_deadline(failing: Stack) -> None:
    """The verifier has no record of this Service, and its Revision gives up."""
    path = f"/apis/serving.knative.dev/v1/namespaces/{NAMESPACE}/services"

    def given_up(services: list[Object]) -> bool:
        return any(
            condition["type"] == "ConfigurationsReady" and condition["status"] == "False"
            for each in services
            if each["metadata"]["name"] == "late"
            for condition in each.get("status", {}).get("conditions", ())
        )

    failing.admin.until(path, given_up, seconds=_PATIENCE_SECONDS)
    failing.gone(NAMESPACE, "late", seconds=_PATIENCE_SECONDS)
    _described(failing, "late", r"morphisms explain \w+ \[verifier-refused")


@pytest.fixture(scope="module")
def resident(failing: Stack) -> Object:
    """The one pod of a Service that keeps renewing, ready."""
    _apply(failing, "killed", {"morphisms.dev/agent": "sidecar"} | _ONE_POD)
    return failing.ready_pod(NAMESPACE, "killed", seconds=_PATIENCE_SECONDS)


def test_a_sidecar_that_is_killed_comes_back_beside_the_running_application(failing: Stack, resident: Object) -> None:
    _kill(failing, resident, "morphisms-init")

    def back(pods: list[Object]) -> bool:
        (init,) = next(
            each["status"]["initContainerStatuses"]
            for each in pods
            if each["metadata"]["uid"] == resident["metadata"]["uid"]
        )
        return init["restartCount"] > 0 and bool(init["ready"])

    failing.admin.until(_PODS, back, seconds=_PATIENCE_SECONDS)
    until(lambda: _file(failing, "killed-00001") == digest("of killed"), _PATIENCE_SECONDS)
    assert _restarts(failing, resident) == {"user-container": 0, "queue-proxy": 0}


def test_an_application_waits_in_its_helper_while_its_secret_is_missing(failing: Stack) -> None:
    """It starts by hook: it runs, is not ready, and the Service says why. No restart of it is needed afterwards."""
    failing.apply(_by_hook(failing, "waiting"))
    assert "[secret-missing, " in _told(failing, "waiting")
    _described(failing, "waiting", rf"(?s)secret-missing.*{_HOME}/waiting/db|{_HOME}/waiting/db.*secret-missing")
    (pod,) = failing.pods(NAMESPACE, "waiting")
    (init,) = pod["spec"]["initContainers"]
    assert ("lifecycle" in init, "startupProbe" in init) == (True, False)
    until(lambda: bool(_processes(failing, pod, EXEC_HELPER)), _PATIENCE_SECONDS)
    assert not holds(failing.admin.get(f"{_PODS}/{pod['metadata']['name']}"))
    failing.morphisms.write_secret(f"{_HOME}/waiting/db", password="of waiting")
    ready = failing.ready_pod(NAMESPACE, "waiting", seconds=_PATIENCE_SECONDS)
    assert ready["metadata"]["uid"] == pod["metadata"]["uid"]
    assert _restarts(failing, pod) == {"user-container": 0, "queue-proxy": 0}
    assert failing.ask(pod)["variables"] == {"DB": digest("of waiting")}
    assert _processes(failing, pod, EXEC_HELPER) == []


def test_what_the_hook_installed_is_there_for_each_restart(failing: Stack) -> None:
    """Of `morphisms-init`, whose hook runs anew, and then of the application."""
    failing.morphisms.write_secret(f"{_HOME}/waiting/db", password="of waiting")
    failing.apply(_by_hook(failing, "waiting"))
    pod = failing.ready_pod(NAMESPACE, "waiting", seconds=_PATIENCE_SECONDS)
    for name, kind in (("morphisms-init", "initContainerStatuses"), ("/application", "containerStatuses")):
        _kill(failing, pod, name)

        def back(pods: list[Object], kind: str = kind) -> bool:
            (now,) = [each for each in pods if each["metadata"]["uid"] == pod["metadata"]["uid"]]
            return any(each["restartCount"] > 0 and each["ready"] for each in now["status"][kind])

        failing.admin.until(_PODS, back, seconds=_PATIENCE_SECONDS)
    until(lambda: _asked(failing, pod) == {"DB": digest("of waiting")}, _PATIENCE_SECONDS)


def test_kubelet_and_containerd_are_restarted_and_pods_go_on(failing: Stack, resident: Object) -> None:
    failing.morphisms.write_secret(f"{_HOME}/restarted/db", password="of restarted")
    failing.cluster.node.restart_daemons()
    # A kubelet that starts may call pods not ready for a while, those of the webhooks too.
    applied = _service(failing, "restarted")
    until(lambda: failing.admin.kubectl("apply", "-f", "-", input=applied, check=False).code == 0, _PATIENCE_SECONDS)
    failing.ready_pod(NAMESPACE, "restarted", seconds=_PATIENCE_SECONDS)
    until(lambda: _file(failing, "killed-00001") == digest("of killed"), _PATIENCE_SECONDS)
    assert _restarts(failing, resident) == {"user-container": 0, "queue-proxy": 0}


def test_a_request_waits_for_the_webhook_when_none_runs(failing: Stack) -> None:
    _apply(failing, "absent")
    failing.ready_pod(NAMESPACE, "absent", seconds=_PATIENCE_SECONDS)
    failing.gone(NAMESPACE, "absent", seconds=_PATIENCE_SECONDS)
    with ThreadPoolExecutor(1) as pool:
        with _no_webhook(failing):
            asked = pool.submit(failing.request, NAMESPACE, "absent-00001", _PATIENCE_SECONDS)
            _described(failing, "absent", "the webhook of Morphisms does not answer, so this pod waits")
            assert failing.pods(NAMESPACE, "absent") == []
        answer = asked.result()
    assert (answer.status, answer.content["files"]) == (200, {_FILE: digest("of absent")})


def _apply(
    failing: Stack,
    name: str,
    annotations: dict[str, str] | None = None,
    *,
    password: str | None = "",
) -> None:
    """A Service of this name with one secret, which is written first unless `password` is None."""
    if password is not None:
        failing.morphisms.write_secret(f"{_HOME}/{name}/db", password=password or f"of {name}")
    failing.apply(_service(failing, name, annotations))


def _service(failing: Stack, name: str, annotations: dict[str, str] | None = None) -> Object:
    limits = {"limits": {"memory": "100Mi"}}
    written = {**_SECRET, **(annotations or {})}
    return service(failing.application.pinned, f"{NAMESPACE}/{name}", written, env={"FILES": _FILE}, resources=limits)


def _by_hook(failing: Stack, name: str) -> Object:
    """A Service whose only container has a secret as a variable, and no file."""
    annotations = {"morphisms.dev/agent": "sidecar"} | _ONE_POD
    env = {"DB": "vault:~/db#password", "VARIABLES": "DB"}
    image = failing.application.pinned
    return service(image, f"{NAMESPACE}/{name}", annotations, env=env, command=["/application"])


def _ended(failing: Stack, name: str, namespace: str = NAMESPACE) -> dict[str, Any]:
    """How the Service's morphisms-init ended when it failed."""

    def ended(pods: list[Object]) -> dict[str, Any] | None:
        return next((found for pod in pods if (found := initial_end(pod))), None)

    path, label = f"/api/v1/namespaces/{namespace}/pods", f"serving.knative.dev/service={name}"
    return failing.admin.until(path, ended, seconds=_PATIENCE_SECONDS, labelSelector=label)


def _told(failing: Stack, name: str) -> str:
    """The termination message of the Service's morphisms-init."""
    return str(_ended(failing, name)["message"])


def _described(failing: Stack, name: str, pattern: str, namespace: str = NAMESPACE) -> None:
    """Wait until a line of `kubectl describe ksvc` has this pattern."""

    def named() -> bool:
        return bool(re.search(pattern, failing.admin.kubectl("-n", namespace, "describe", "ksvc", name).out))

    until(named, _PATIENCE_SECONDS)


def _began(failing: Stack, name: str, namespace: str = NAMESPACE) -> str:
    """When the pod's sandbox stood, and so before morphisms-init ended at first. One that fails at once is started
    again so soon that the first end may never be seen in the pod."""
    (pod,) = failing.pods(namespace, name)
    (stood,) = [each for each in pod["status"]["conditions"] if each["type"] == "PodReadyToStartContainers"]
    assert stood["status"] == "True"
    return str(stood["lastTransitionTime"])


def _told_once_it_began(failing: Stack, name: str, report: Report, namespace: str = NAMESPACE) -> None:
    """Its Event comes, not before the pod ran, and how soon is reported. Both times are in whole seconds, the kubelet's
    and the scanner's."""
    path, fields = f"/api/v1/namespaces/{namespace}/events", f"reason=MorphismsInitFailed,involvedObject.name={name}"
    events = failing.admin.until(path, list, seconds=_PATIENCE_SECONDS, fieldSelector=fields)
    first = min(datetime.fromisoformat(each["firstTimestamp"]) for each in events)
    seconds = (first - datetime.fromisoformat(_began(failing, name, namespace))).total_seconds()
    report(
        f"  {name}: told {seconds:.0f} s after its sandbox stood (at rest {_AT_REST_SECONDS:.0f} if it fails at once)"
    )
    assert seconds >= 0


def _file(failing: Stack, revision: str) -> str:
    answer = failing.request(NAMESPACE, revision, seconds=_PATIENCE_SECONDS)
    return str(answer.content["files"][_FILE]) if answer.status == 200 else ""


def _asked(failing: Stack, pod: Object) -> object:
    """The variables of the application; None while it does not listen."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        return failing.ask(pod)["variables"]
    return None


def _kill(failing: Stack, pod: Object, name: str) -> None:
    """The pod's processes of this name."""
    for pid in _processes(failing, pod, name):
        with contextlib.suppress(ProcessLookupError):  # one that only looked at another's health
            os.kill(pid, signal.SIGKILL)


def _restarts(failing: Stack, pod: Object) -> dict[str, int]:
    now = failing.admin.get(f"{_PODS}/{pod['metadata']['name']}")
    return {status["name"]: status["restartCount"] for status in now["status"]["containerStatuses"]}


def _tries(failing: Stack, name: str) -> int:
    """How often one container of the Service's pod has said that it tries again."""
    for pod in failing.pods(NAMESPACE, name):
        words = ("-n", NAMESPACE, "logs", pod["metadata"]["name"], "-c", "morphisms-init")
        log = failing.admin.kubectl(*words, check=False).out
        return log.count('"retry"')
    return 0


@contextlib.contextmanager
def _no_webhook(failing: Stack) -> Iterator[None]:
    """No replica of the webhook runs."""
    deployment = f"/apis/apps/v1/namespaces/{WEBHOOK_NAMESPACE}/deployments/morphisms-webhook"
    pods = f"/api/v1/namespaces/{WEBHOOK_NAMESPACE}/pods"
    failing.admin.patch(deployment, {"spec": {"replicas": 0}})
    try:
        label = "app.kubernetes.io/component=webhook"
        failing.admin.until(pods, lambda found: not found, seconds=_PATIENCE_SECONDS, labelSelector=label)
        yield
    finally:
        failing.admin.patch(deployment, {"spec": {"replicas": 1}})
        failing.morphisms.wait_for_webhook()


def _processes(failing: Stack, pod: Object, name: str) -> list[int]:
    """The pod's processes whose command line has this name."""
    uid = pod["metadata"]["uid"]
    found = []
    for pid in failing.sandbox.cgroup.members():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            folder = Path(f"/proc/{pid}")
            if uid in (folder / "cgroup").read_text() and name.encode() in (folder / "cmdline").read_bytes():
                found.append(pid)
    return found
