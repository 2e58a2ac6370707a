"""Attacks on what keeps a pod apart: from its host, from people, from other containers, and from plain secrets."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.cluster.attacks import (
    IMAGE,
    UNSCHEDULABLE,
    allowed,
    developer,
    is_confidential,
    make_pod,
    mallory,
    reasons,
    try_pod,
)
from tests.cluster.client import Object
from tests.cluster.controlplane import ControlPlane
from tests.cluster.namespace import Namespace

pytestmark = pytest.mark.usefixtures("morphisms")
Make = Callable[..., Namespace]
_MOUNT: Object = {"volumeMounts": [{"name": "v", "mountPath": "/v"}]}
_REFERENCE = {"name": "P", "value": "vault:secret/shop/db#password"}


@pytest.fixture
def here(namespace: Make) -> Namespace:
    return namespace("enforce")


def _volume(**source: object) -> Object:
    return {"volumes": [{"name": "v", **source}]}


@pytest.mark.parametrize(
    ("spec", "rule", "twin"),
    [
        ({"hostNetwork": True}, "isolation/host-namespaces", {"hostNetwork": False}),
        ({"hostPID": True}, "isolation/host-namespaces", {"hostPID": False}),
        ({"hostIPC": True}, "isolation/host-namespaces", {"hostIPC": False}),
        ({"hostUsers": False}, "isolation/user-namespace", {"hostUsers": True}),
        (_volume(hostPath={"path": "/dev"}), "isolation/host-path", _volume(emptyDir={})),
        ({"shareProcessNamespace": True}, "isolation/process-namespace", {"shareProcessNamespace": False}),
    ],
    ids=["network", "pid", "ipc", "users", "path", "processes"],
)
def test_c27_c28_what_is_shared(cluster: ControlPlane, here: Namespace, spec: Object, rule: str, twin: Object) -> None:
    assert reasons(try_pod(developer(cluster), here, make_pod(**spec))) == {rule}
    assert is_confidential(allowed(try_pod(developer(cluster), here, make_pod(**twin))))


@pytest.mark.parametrize("group", ["containers", "initContainers"])
def test_c27_privileged(cluster: ControlPlane, here: Namespace, group: str) -> None:
    def pod(privileged: bool) -> Object:
        made = make_pod()
        context = {"privileged": privileged}
        made["spec"].setdefault(group, []).append({"name": "other", "image": IMAGE, "securityContext": context})
        return made

    assert reasons(try_pod(developer(cluster), here, pod(True))) == {"isolation/privileged"}
    allowed(try_pod(developer(cluster), here, pod(False)))


@pytest.mark.parametrize(
    ("context", "rule", "twin"),
    [
        ({"capabilities": {"add": ["SYS_ADMIN"]}}, "capabilities", {"capabilities": {"add": ["NET_BIND_SERVICE"]}}),
        ({"capabilities": {"add": ["SYS_PTRACE"]}}, "capabilities", {"capabilities": {"drop": ["ALL"]}}),
        ({"seccompProfile": {"type": "Unconfined"}}, "confinement", {"seccompProfile": {"type": "RuntimeDefault"}}),
        ({"appArmorProfile": {"type": "Unconfined"}}, "confinement", {"appArmorProfile": {"type": "RuntimeDefault"}}),
    ],
    ids=["admin", "ptrace", "seccomp", "apparmor"],
)
def test_c27_as_strong_as_privileged(
    cluster: ControlPlane, here: Namespace, context: Object, rule: str, twin: Object
) -> None:
    refused = make_pod(container={"securityContext": context})
    assert reasons(try_pod(developer(cluster), here, refused)) == {f"isolation/{rule}"}
    allowed(try_pod(developer(cluster), here, make_pod(container={"securityContext": twin})))


@pytest.mark.parametrize("door", ["exec", "attach", "portforward"])
def test_c29_into_a_running_pod(cluster: ControlPlane, here: Namespace, namespace: Make, door: str) -> None:
    """By GET as well as by POST: which one it is depends on the client. The twin is stopped by the missing kubelet."""
    open_one = namespace()
    query = {"command": "id", "stdout": "true", "container": "app"}
    for each in (here, open_one):
        developer(cluster).create(each.pods(), make_pod("victim", **UNSCHEDULABLE))
    for client in (developer(cluster), mallory(cluster), cluster.admin):
        for method in ("GET", "POST"):
            answer = client.request(method, here.pods(f"victim/{door}"), query=query)
            assert reasons(answer) == {"isolation/exec"}
            twin = client.request(method, open_one.pods(f"victim/{door}"), query=query)
            assert (twin.status, "does not have a host assigned" in twin.message) == (400, True)


@pytest.mark.parametrize(
    ("spec", "container", "rule"),
    [
        ({}, {"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]}, "env"),
        ({}, {"envFrom": [{"secretRef": {"name": "s"}}]}, "env"),
        (_volume(secret={"secretName": "s"}), _MOUNT, "volume"),
        (_volume(projected={"sources": [{"secret": {"name": "s"}}]}), _MOUNT, "volume"),
    ],
    ids=["variable", "all variables", "volume", "projected"],
)
def test_c32_kubernetes_secret(
    cluster: ControlPlane, here: Namespace, spec: Object, container: Object, rule: str
) -> None:
    pod = make_pod(container=container, **spec)
    assert reasons(try_pod(developer(cluster), here, pod)) == {f"secrets/kubernetes-secret-{rule}"}
    allowed(try_pod(developer(cluster), here, make_pod(container=_MOUNT, **_volume(configMap={"name": "c"}))))


def test_c33_secret_in_plain_text(cluster: ControlPlane, here: Namespace) -> None:
    def pod(value: str) -> Object:
        return make_pod(container={"command": ["/app"], "env": [{"name": "DB_PASSWORD", "value": value}]})

    plain = try_pod(developer(cluster), here, pod("xK9-fq2_Lm7vR4tZ"))
    assert reasons(plain) == {"secrets/plaintext-env"}
    assert "xK9-fq2_Lm7vR4tZ" not in plain.message
    # As kubectl keeps it beside the object that it has applied.
    kept = make_pod(
        annotations={"kubectl.kubernetes.io/last-applied-configuration": json.dumps(pod("xK9-fq2_Lm7vR4tZ"))}
    )
    assert reasons(try_pod(developer(cluster), here, kept)) == {"secrets/last-applied"}
    assert is_confidential(allowed(try_pod(developer(cluster), here, pod("vault:secret/shop/db#password"))))


def test_c32_secrets_that_the_node_fetches(cluster: ControlPlane, here: Namespace) -> None:
    def pod(driver: str) -> Object:
        return make_pod(container=_MOUNT, **_volume(csi={"driver": driver, "readOnly": True}))

    refused = try_pod(developer(cluster), here, pod("secrets-store.csi.k8s.io"))
    assert reasons(refused) == {"secrets/node-fetched"}
    allowed(try_pod(developer(cluster), here, pod("inline.storage.example")))


@pytest.mark.parametrize(
    "container",
    [
        {"args": ["--dsn=postgres://app:s3cr3t@db/shop"]},
        {
            "readinessProbe": {
                "httpGet": {"port": 80, "httpHeaders": [{"name": "A", "value": "Bearer a1b2c3d4e5f6g7h8"}]}
            }
        },
        {"lifecycle": {"preStop": {"exec": {"command": ["sh", "-c", "curl amqp://app:s3cr3t@mq/"]}}}},
    ],
    ids=["argument", "probe", "hook"],
)
def test_c33_secret_in_plain_text_outside_env(cluster: ControlPlane, here: Namespace, container: Object) -> None:
    refused = try_pod(developer(cluster), here, make_pod(container=container))
    assert reasons(refused) == {"secrets/plaintext-fields"}
    assert "s3cr3t" not in refused.message
    allowed(try_pod(developer(cluster), here, make_pod(container={"args": ["--dsn=postgres://db/shop"]})))


def test_c36_image_that_may_be_another_one_tomorrow(cluster: ControlPlane, here: Namespace) -> None:
    """In each kind of container, and as a volume, whose content may well be run too."""
    for tag in ("dev.local/app", "dev.local/app:1.0", "dev.local/app@sha256:abc"):
        refused = [
            make_pod(container={"image": tag}),
            make_pod(initContainers=[{"name": "first", "image": tag}]),
            make_pod(**_volume(image={"reference": tag})),
        ]
        for pod in refused:
            answer = try_pod(developer(cluster), here, pod)
            assert answer.status == 422 or reasons(answer) == {"images/digest"}, answer.message
    pinned = make_pod(initContainers=[{"name": "first", "image": IMAGE}], **_volume(image={"reference": IMAGE}))
    assert is_confidential(allowed(try_pod(developer(cluster), here, pinned)))


def test_c38_application_that_would_run_without_its_secrets(cluster: ControlPlane, here: Namespace) -> None:
    """A container whose variables come from Vault cannot start past the helper that waits for them."""
    wrapped = make_pod(container={"command": ["/app"], "env": [_REFERENCE]})
    spec = allowed(try_pod(developer(cluster), here, wrapped))["spec"]
    assert spec["containers"][0]["command"] == ["/morphisms/run/exec", "app", "--", "/app"]
    bypassing = make_pod(container={"env": [_REFERENCE]})
    assert "secrets/references" in reasons(try_pod(developer(cluster), here, bypassing))
