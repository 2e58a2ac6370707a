"""A node that hosts no SNP guests joins, and the scheduler prefers it: which pods land there, and which do not.

Evidence is simulated, and every runtime handler is plain runc.
"""

from __future__ import annotations

import contextlib
import http.client
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.cluster.client import Client, Object
from tests.cluster.conditions import holds
from tests.cluster.knative import NAMESPACE as KNATIVE_NAMESPACE
from tests.cluster.nodes import SNP_LABEL
from tests.node.cluster import NAME, PLAIN_NAME, TRUSTED_LABEL
from tests.node.node import Node
from tests.node.records import records
from tests.node.sandbox import traces
from tests.node.services import RESTRICTED, digest, service
from tests.node.stack import Stack
from tests.support.paths import ROOT
from tests.support.until import until

pytestmark = [pytest.mark.node, pytest.mark.slow]

NAMESPACE = "placed"
_ORDINARY = "ordinary"
_HOME = f"knative/cluster/{NAMESPACE}"
_PATIENCE_SECONDS = 600.0
_ACTIVATORS = f"/api/v1/namespaces/{KNATIVE_NAMESPACE}/pods"
_DEPLOYMENT = f"/apis/apps/v1/namespaces/{KNATIVE_NAMESPACE}/deployments/activator"
_FILE = "/morphisms/secrets/db"
_SECRET = {"morphisms.dev/secret-db": "~/db#password"}


@pytest.fixture(scope="module")
def plain(stack: Stack) -> Iterator[Node]:
    """The plain node, ready, in a cluster whose other node is to be avoided where there is a choice."""
    trusted = stack.cluster.node
    node = stack.cluster.join_plain()
    avoided = {"key": "tests.example/avoid", "effect": "PreferNoSchedule"}
    stack.admin.patch(trusted.path, {"spec": {"taints": [avoided]}})
    for name, labels in ((_ORDINARY, {}), (NAMESPACE, {"morphisms.dev/mode": "enforce"})):
        stack.namespace(name, labels)
    try:
        yield node
    finally:
        stack.admin.patch(trusted.path, {"spec": {"taints": None, "unschedulable": None}})
        for name in (_ORDINARY, NAMESPACE):
            stack.admin.delete(f"/api/v1/namespaces/{name}")
        node.leave()


@pytest.fixture(scope="module")
def confined(stack: Stack, plain: Node) -> Iterator[Stack]:
    """Knative's own namespace in enforce, with three activators. Without a mode one of them lands on the plain node."""
    stock = stack.admin.get(_DEPLOYMENT)["spec"]
    _shape_activators(stack.admin, replicas=3)
    try:
        stack.admin.until(
            _ACTIVATORS,
            lambda pods: any(_node(pod) == PLAIN_NAME and holds(pod) for pod in pods),
            seconds=_PATIENCE_SECONDS,
            labelSelector="app=activator",
        )
        _set_mode(stack.admin, "enforce")
        until(lambda: _is_confined(stack.admin), _PATIENCE_SECONDS)  # the webhook has seen it
        _shape_activators(stack.admin, replicas=3, mark="confined")
        _activators(stack.admin, lambda pods: len(pods) == 3 and all(map(holds, pods)))
        yield stack
    finally:
        _set_mode(stack.admin, None)
        template = {"$patch": "replace", **stock["template"]}
        stack.admin.patch(_DEPLOYMENT, {"spec": {"replicas": 1, "template": template}}, _STRATEGIC)
        stack.admin.until(_ACTIVATORS, _is_stock, seconds=_PATIENCE_SECONDS, labelSelector="app=activator")


def test_ordinary_pods_run_on_the_plain_node_and_answer_from_there(stack: Stack, plain: Node) -> None:
    stack.apply(_ordinary(stack, "wide", 4))
    pods = stack.admin.until(
        f"/api/v1/namespaces/{_ORDINARY}/pods",
        lambda pods: pods if len(pods) == 4 and all(map(holds, pods)) else None,
        seconds=_PATIENCE_SECONDS,
        labelSelector="app=wide",
    )
    there = [pod for pod in pods if _node(pod) == PLAIN_NAME]
    assert there
    # Its address is of the second bridge, and the API server reaches its kubelet.
    assert there[0]["status"]["podIP"].startswith("10.124.")
    # It is ready before it listens, because it has no probe.
    until(lambda: _status(stack, there[0]) == 200, _PATIENCE_SECONDS)
    stack.admin.kubectl("-n", _ORDINARY, "logs", there[0]["metadata"]["name"])


def test_every_activator_is_on_the_node_with_the_trusted_label(confined: Stack) -> None:
    pods = _activators(confined.admin, lambda pods: len(pods) == 3)
    assert {_node(pod) for pod in pods} == {NAME}
    for pod in pods:
        assert _required_labels(pod) == {TRUSTED_LABEL}


def test_each_next_pod_of_knative_itself_is_placed_there(confined: Stack) -> None:
    path = f"/apis/apps/v1/namespaces/{KNATIVE_NAMESPACE}/deployments"
    deployments = {each["metadata"]["name"]: each["spec"]["template"]["spec"] for each in confined.admin.items(path)}
    assert {"activator", "autoscaler", "controller", "webhook"} <= deployments.keys()
    for name, spec in deployments.items():
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"next-{name}"}, "spec": spec}
        created = confined.admin.create(f"/api/v1/namespaces/{KNATIVE_NAMESPACE}/pods", pod, dryRun="All")
        assert _required_labels(created) == {TRUSTED_LABEL}, name


def test_an_activator_waits_rather_than_land_on_the_plain_node(confined: Stack) -> None:
    with _cordoned(confined):
        confined.admin.patch(_DEPLOYMENT, {"spec": {"replicas": 5}})
        waiting = _activators(confined.admin, lambda pods: sum(map(_is_unschedulable, pods)) == 2)
        assert {_node(pod) for pod in waiting} == {NAME, None}
        # The scheduler has gone on since: whatever may land on the plain node does.
        confined.apply(_ordinary(confined, "later", 1))
        (later,) = confined.admin.until(
            f"/api/v1/namespaces/{_ORDINARY}/pods",
            lambda pods: pods if any(map(holds, pods)) else None,
            seconds=_PATIENCE_SECONDS,
            labelSelector="app=later",
        )
        assert _node(later) == PLAIN_NAME
        still = _activators(confined.admin, lambda pods: len(pods) == 5)
        assert sum(map(_is_unschedulable, still)) == 2
    pods = _activators(confined.admin, lambda pods: len(pods) == 5 and all(map(holds, pods)))
    assert {_node(pod) for pod in pods} == {NAME}


def test_pods_that_the_autoscaler_adds_and_their_queue_proxies_are_on_the_trusted_node(confined: Stack) -> None:
    confined.morphisms.write_secret(f"{_HOME}/scaled/db", password="of scaled")
    confined.apply(_confidential(confined, "scaled", pod={"containerConcurrency": 1}))
    confined.ready_pod(NAMESPACE, "scaled")
    enough = threading.Event()

    def ask() -> set[tuple[int, str]]:
        seen = set()
        while not enough.is_set():
            answer = confined.request(NAMESPACE, "scaled-00001", path="/?hold=1s")
            seen.add((answer.status, answer.content["files"][_FILE]))
        return seen

    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask) for _ in range(4)]
        try:
            pods = confined.admin.until(
                f"/api/v1/namespaces/{NAMESPACE}/pods",
                lambda pods: pods if sum(map(holds, pods)) >= 3 else None,
                seconds=_PATIENCE_SECONDS,
                labelSelector="serving.knative.dev/service=scaled",
            )
        finally:
            enough.set()
        assert set().union(*(each.result() for each in asking)) == {(200, digest("of scaled"))}
    assert {_node(pod) for pod in pods} <= {NAME, None}
    assert all("queue-proxy" in {each["name"] for each in pod["spec"]["containers"]} for pod in pods)


def test_a_kubelet_that_calls_its_node_confidential_gets_no_confidential_pod(confined: Stack, plain: Node) -> None:
    kubelet = confined.cluster.control_plane.node(PLAIN_NAME)
    kubelet.patch(plain.path, {"metadata": {"labels": {SNP_LABEL: "true"}}})
    refused = kubelet.request(
        "PATCH",
        plain.path,
        {"metadata": {"labels": {TRUSTED_LABEL: "true"}}},
        content_type="application/merge-patch+json",
    )
    assert refused.status == 403, refused.body
    confined.morphisms.write_secret(f"{_HOME}/waiting/db", password="of waiting")
    try:
        with _cordoned(confined):
            confined.apply(_confidential(confined, "waiting"))
            (pod,) = _waiting(confined)
            assert _required_labels(pod) == {SNP_LABEL, TRUSTED_LABEL}
            # No user binds it there either.
            done = _bind(confined.admin, pod["metadata"]["name"])
            assert (done.status, "placement/binding-target" in done.body["message"]) == (403, True), done.body
            assert f"node {PLAIN_NAME} is not a node of profile kata-snp" in done.body["message"]
            assert _node(confined.admin.get(f"/api/v1/namespaces/{NAMESPACE}/pods/{pod['metadata']['name']}")) is None
        assert _node(confined.ready_pod(NAMESPACE, "waiting")) == NAME
    finally:
        kubelet.patch(plain.path, {"metadata": {"labels": {SNP_LABEL: None}}})


@pytest.mark.parametrize("namespace", [NAMESPACE, KNATIVE_NAMESPACE])
def test_a_pod_that_names_the_plain_node_itself_is_denied(confined: Stack, namespace: str) -> None:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "bound", "namespace": namespace},
        "spec": {"nodeName": PLAIN_NAME, **_template(confined)},
    }
    done = confined.admin.kubectl("create", "-f", "-", input=pod, check=False)
    assert done.code != 0
    assert "placement/node-name" in done.err
    assert "remove nodeName: it bypasses the scheduler" in done.err


_RUN = """
import sys
from pathlib import Path
from tests.cluster.binaries import binary
from tests.node import images
from tests.node.cluster import NodeCluster
from tests.node.programs import PAUSE
from tests.node.sandbox import Sandbox
made = Sandbox.make()
pause = images.of_programs("pause", {"/pause": Path(binary(PAUSE, "pause"))}, made.folder / "pause.tar")
cluster = NodeCluster(made, pause)
cluster.start()
cluster.load([pause])
node = cluster.join_plain()
container = {"name": "pause", "image": pause.pinned}
pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one"}}
cluster.admin.until("/api/v1/namespaces/default/serviceaccounts", bool)
pod["spec"] = {"nodeName": node.name, "containers": [container]}
cluster.admin.create("/api/v1/namespaces/default/pods", pod)
cluster.admin.until(
    "/api/v1/namespaces/default/pods", lambda pods: pods[0]["status"]["phase"] == "Running", seconds=600
)
print(made.record.name, flush=True)
sys.stdin.read()
"""


def test_two_nodes_whose_run_is_killed_leave_nothing() -> None:
    run = subprocess.Popen(
        [sys.executable, "-c", _RUN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, text=True
    )
    assert run.stdout is not None
    assert run.stdin is not None
    try:
        name = run.stdout.readline().strip()
        (record,) = [record for record in records() if record.name == name]
        # Both kubelets, and the second one's pod.
        commands = [_command(pid) for pid in record.cgroup.members()]
        assert sum("--hostname-override=" in command for command in commands) == 2
        assert [command for command in commands if "/pause" in command]
        assert any((folder / PLAIN_NAME / "kubepods").exists() for folder in record.cgroup.folders)
    finally:
        run.kill()
        run.wait()
        run.stdin.close()
        run.stdout.close()
    until(lambda: not record.file.exists(), _PATIENCE_SECONDS)
    assert traces(record) == []


_STRATEGIC = "application/strategic-merge-patch+json"


def _shape_activators(admin: Client, *, replicas: int, mark: str = "") -> None:
    """Small ones, so that the node has room for them all; `mark` makes new ones."""
    container = {"name": "activator", "resources": {"requests": {"cpu": "10m", "memory": "10Mi"}}}
    template = {"metadata": {"labels": {"mark": mark}}, "spec": {"containers": [container]}}
    admin.patch(_DEPLOYMENT, {"spec": {"replicas": replicas, "template": template}}, _STRATEGIC)


def _set_mode(admin: Client, mode: str | None) -> None:
    admin.patch(f"/api/v1/namespaces/{KNATIVE_NAMESPACE}", {"metadata": {"labels": {"morphisms.dev/mode": mode}}})


def _is_confined(admin: Client) -> bool:
    """The next pod of the activator is placed."""
    spec = admin.get(_DEPLOYMENT)["spec"]["template"]["spec"]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "next"}, "spec": spec}
    created = admin.create(f"/api/v1/namespaces/{KNATIVE_NAMESPACE}/pods", pod, dryRun="All")
    return "nodeAffinity" in created["spec"].get("affinity", {})


def _activators(admin: Client, condition: Callable[[list[Object]], bool]) -> list[Object]:
    """Those made since the namespace has its mode, once the condition holds; older ones take long to end."""
    return admin.until(
        _ACTIVATORS,
        lambda pods: pods if condition(pods) else None,
        seconds=_PATIENCE_SECONDS,
        labelSelector="app=activator,mark=confined",
    )


def _is_stock(pods: list[Object]) -> bool:
    return any("mark" not in pod["metadata"]["labels"] and holds(pod) for pod in pods)


@contextlib.contextmanager
def _cordoned(stack: Stack) -> Iterator[None]:
    """Only the plain node takes new pods."""
    path = stack.cluster.node.path
    stack.admin.patch(path, {"spec": {"unschedulable": True}})
    try:
        yield
    finally:
        stack.admin.patch(path, {"spec": {"unschedulable": None}})


def _template(stack: Stack) -> dict[str, Any]:
    container = {"name": "application", "image": stack.application.pinned, "securityContext": RESTRICTED}
    return {"containers": [{**container, "env": [{"name": "PORT", "value": "8080"}]}]}


def _ordinary(stack: Stack, name: str, replicas: int) -> Object:
    labels = {"app": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": _ORDINARY},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": _template(stack)},
        },
    }


def _confidential(stack: Stack, name: str, pod: dict[str, Any] | None = None) -> Object:
    return service(stack.application.pinned, f"{NAMESPACE}/{name}", _SECRET, env={"FILES": _FILE}, pod=pod)


def _waiting(stack: Stack) -> list[Object]:
    return stack.admin.until(
        f"/api/v1/namespaces/{NAMESPACE}/pods",
        lambda pods: pods if pods and all(map(_is_unschedulable, pods)) else None,
        seconds=_PATIENCE_SECONDS,
        labelSelector="serving.knative.dev/service=waiting",
    )


def _bind(admin: Client, name: str) -> Any:
    binding = {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "target": {"apiVersion": "v1", "kind": "Node", "name": PLAIN_NAME},
    }
    return admin.request("POST", f"/api/v1/namespaces/{NAMESPACE}/pods/{name}/binding", binding)


def _required_labels(pod: Object) -> set[str]:
    required = pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    (term,) = required["nodeSelectorTerms"]
    return {each["key"] for each in term["matchExpressions"]}


def _status(stack: Stack, pod: Object) -> int:
    """Of the application's answer at the pod's address; 0 while it does not listen."""
    with contextlib.suppress(OSError), stack.sandbox.connect(pod["status"]["podIP"], 8080) as plain:
        connection = http.client.HTTPConnection("pod")
        connection.sock = plain
        connection.request("GET", "/")
        return connection.getresponse().status
    return 0


def _node(pod: Object) -> str | None:
    found: str | None = pod["spec"].get("nodeName")
    return found


def _is_unschedulable(pod: Object) -> bool:
    conditions = pod.get("status", {}).get("conditions", ())
    return any(each.get("reason") == "Unschedulable" for each in conditions) and _node(pod) is None


def _command(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().replace(b"\0", b" ").decode()
    except OSError:
        return ""
