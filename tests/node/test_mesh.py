"""Beside a mesh that injects its containers too, called before our webhook and after it, in a namespace in enforce.

Evidence is simulated, the runtime class is plain runc, and the mesh's containers redirect nothing.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.cluster.client import Object
from tests.cluster.process import Process
from tests.node import mesh
from tests.node.services import RESTRICTED, digest, service
from tests.node.stack import Stack
from webhook.rewrite.mesh import MESHES

pytestmark = [pytest.mark.node, pytest.mark.slow]

# The API server calls configurations in the order of their names; ours is `morphisms`.
_CONFIGURATIONS = {"mesh-before": "istio-sidecar-injector", "mesh-after": "zz-istio-sidecar-injector"}
_OURS = "morphisms"
_PATIENCE_SECONDS = 600.0
_INBOUND = "traffic.sidecar.istio.io/excludeInboundPorts"
_OUTBOUND = "traffic.sidecar.istio.io/excludeOutboundPorts"
_CALL = re.compile(r"mutation\.webhook\.admission\.k8s\.io/round_(\d+)_index_(\d+)")
# By what redirects: the rest of the template's annotations, and what the pod's exclude.
_KINDS = {
    # The mesh's proxy answers the kubelet's probes, so the port of ours is excluded, beside the author's own.
    "init-container": ({"morphisms.dev/agent": "sidecar", _INBOUND: "9000"}, {_INBOUND: "9000,15790"}),
    # Ports of the verifier and of Vault: morphisms-init runs when the traffic is redirected already.
    "cni": ({}, {_OUTBOUND: "443,8200"}),
}


@dataclass(frozen=True)
class Meshed:
    """The ready pod of a Service, and what is expected of it."""

    namespace: str
    name: str
    pod: Object
    excluded: dict[str, str]
    since: int


@pytest.fixture(scope="module")
def injector(stack: Stack) -> Iterator[Stack]:
    """The mesh's webhook, registered before ours for one namespace in enforce, and after ours for another."""
    certificate, key = stack.cluster.control_plane.server_certificate("mesh", "127.0.0.1")
    log = stack.sandbox.folder / "mesh.log"
    command = [*stack.sandbox.prefix, sys.executable, "-m", "tests.node.mesh", str(certificate), str(key)]
    process = Process(
        [*command, stack.application.pinned], log, stack.sandbox.keeper, ready=lambda: "Running on" in log.read_text()
    )
    process.start()
    for namespace, configuration in _CONFIGURATIONS.items():
        stack.namespace(namespace, {"morphisms.dev/mode": "enforce"})
        mesh.register(stack, configuration, namespace)
    yield stack
    process.stop()


@pytest.fixture(scope="module", params=list(_KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module", params=list(_CONFIGURATIONS))
def meshed(injector: Stack, kind: str, request: pytest.FixtureRequest) -> Meshed:
    """A Service of that namespace whose author names one secret and knows of no order."""
    namespace = str(request.param)
    annotations, excluded = _KINDS[kind]
    injector.morphisms.write_secret(f"knative/cluster/{namespace}/{kind}/db", password=f"of {namespace} {kind}")
    since = injector.cluster.control_plane.audit.mark()
    written = {
        "morphisms.dev/secret-db": "~/db#password",
        mesh.REDIRECTED_BY: kind,
        "autoscaling.knative.dev/min-scale": "1",
        **annotations,
    }
    place = f"{namespace}/{kind}"
    injector.apply(service(injector.application.pinned, place, written, env={"FILES": "/morphisms/secrets/db"}))
    pod = injector.ready_pod(namespace, kind, seconds=_PATIENCE_SECONDS)
    return Meshed(namespace, kind, pod, excluded, since)


def test_its_pod_comes_up_and_answers_with_the_digest_of_its_secret(injector: Stack, meshed: Meshed) -> None:
    statuses = {status["name"]: status for status in meshed.pod["status"]["containerStatuses"]}
    assert set(statuses) == {"user-container", "queue-proxy", mesh.PROXY}
    assert all(status["restartCount"] == 0 for status in statuses.values())
    answer = injector.request(meshed.namespace, f"{meshed.name}-00001")
    assert answer.status == 200, answer.body
    secret = f"of {meshed.namespace} {meshed.name}"
    assert answer.content["files"] == {"/morphisms/secrets/db": digest(secret)}


def test_both_webhooks_changed_it_in_the_registered_order(injector: Stack, meshed: Meshed) -> None:
    """Called first, ours is called again once the mesh's containers are there, and changes the pod a second time."""
    first = _CONFIGURATIONS[meshed.namespace]
    order = [first, _OURS] if first < _OURS else [_OURS, first]
    calls = _calls(injector, meshed)
    changed = [(number, configuration) for number, configuration, mutated in calls if mutated]
    assert changed[:2] == [(0, name) for name in order]
    assert changed[2:] == ([] if first < _OURS else [(1, _OURS)])


def test_morphisms_init_comes_before_what_the_mesh_adds(meshed: Meshed) -> None:
    """Called after ours, Istio puts its validation first, and ours is moved when it is called again."""
    names = [container["name"] for container in meshed.pod["spec"]["initContainers"]]
    assert names == ["morphisms-init", mesh.initial_container(meshed.pod)]


def test_the_mesh_is_told_which_ports_to_leave_alone(meshed: Meshed) -> None:
    annotations = meshed.pod["metadata"]["annotations"]
    assert {key: annotations[key] for key in (_INBOUND, _OUTBOUND) if key in annotations} == meshed.excluded
    assert "sidecar.istio.io/status" in annotations


def test_the_meshs_containers_have_no_secret_and_no_token_of_ours(injector: Stack, meshed: Meshed) -> None:
    specification = meshed.pod["spec"]
    containers = [*specification["initContainers"], *specification["containers"]]
    having = {"morphisms-secrets": set[str](), "morphisms-token": set[str]()}
    for container in containers:
        for mount in container.get("volumeMounts", ()):
            if mount["name"].startswith("morphisms-"):
                having.setdefault(mount["name"], set()).add(container["name"])
    assert having["morphisms-secrets"] == {"morphisms-init", "user-container"}
    assert having["morphisms-token"] == {"morphisms-init"}
    of_the_mesh = {mesh.PROXY, mesh.initial_container(meshed.pod)}
    assert [name for name, users in having.items() if users & of_the_mesh] == []
    # What the runtime was told of the proxy that runs.
    (told,) = _told(injector, meshed, mesh.PROXY)
    targets = [mount["destination"] for mount in told["mounts"]]
    assert "/etc/istio/proxy" in targets
    assert [target for target in targets if target.startswith("/morphisms")] == []


@pytest.mark.parametrize("namespace", list(_CONFIGURATIONS))
@pytest.mark.parametrize("volume", ["morphisms-secrets", "morphisms-token"])
def test_a_mesh_that_mounts_our_volume_is_denied(injector: Stack, namespace: str, volume: str) -> None:
    """The same pod is admitted without that mount."""
    path, query = f"/api/v1/namespaces/{namespace}/pods", {"dryRun": "All"}
    assert injector.admin.request("POST", path, _pod(injector, {}), query=query).status == 201
    refused = injector.admin.request("POST", path, _pod(injector, {mesh.STEALS: volume}), query=query)
    assert refused.status >= 400, refused.body
    assert "isolation/foreign-mounts" in refused.message
    assert mesh.PROXY in refused.message


@pytest.mark.parametrize("namespace", list(_CONFIGURATIONS))
def test_the_author_is_told_of_a_port_that_only_the_template_can_exclude(injector: Stack, namespace: str) -> None:
    """Istio's webhook reads the annotation for its init container, before ours can write it."""
    path, query = f"/api/v1/namespaces/{namespace}/pods", {"dryRun": "All"}
    pod = _pod(injector, {"morphisms.dev/agent": "sidecar"})
    answer = injector.admin.request("POST", path, pod, query=query)
    assert answer.status == 201, answer.message
    expected = f"[mesh] {MESHES[0].name} redirects ports of morphisms-init; add 15790 to annotation {_INBOUND}"
    assert [warning for warning in answer.warnings if warning.startswith(expected)]


def _pod(injector: Stack, annotations: dict[str, str]) -> Object:
    container = {"name": "app", "image": injector.application.pinned, "securityContext": RESTRICTED}
    written = {"morphisms.dev/secret-db": "secret/a#b", **annotations}
    metadata = {"name": "bare", "annotations": written}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [container]}}


def _calls(injector: Stack, meshed: Meshed) -> list[tuple[int, str, bool]]:
    """(round, configuration, whether it changed the pod) of each mutating webhook that was called, in order."""
    name = meshed.pod["metadata"]["name"]

    def created(event: Object) -> bool:
        made = event.get("responseObject", {}).get("metadata", {}).get("name")
        asked = (event["verb"], event.get("objectRef", {}).get("resource"), made)
        return asked == ("create", "pods", name)

    event = injector.cluster.control_plane.audit.until(created, meshed.since, seconds=_PATIENCE_SECONDS)
    calls = []
    for key, value in event["annotations"].items():
        if found := _CALL.fullmatch(key):
            call = json.loads(value)
            number, index = map(int, found.groups())
            calls.append((number, index, call["configuration"], call["mutated"]))
    return [(number, configuration, mutated) for number, _, configuration, mutated in sorted(calls)]


def _told(injector: Stack, meshed: Meshed, container: str) -> Iterator[dict[str, Any]]:
    """The runtime's specification of a container of the pod that runs."""
    wanted = {
        "io.kubernetes.cri.container-name": container,
        "io.kubernetes.cri.sandbox-name": meshed.pod["metadata"]["name"],
    }
    for _, text in injector.specifications():
        specification = json.loads(text)
        if wanted.items() <= specification.get("annotations", {}).items():
            yield specification
