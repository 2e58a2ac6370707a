"""The demo's kubelet does with a pod's fields what a kubelet does, or says that it cannot."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwt

from demo.image import application_image, sidecar_image
from demo.namespace import Namespace, find_namespace
from demo.node import Node
from demo.tokens import Issuer
from demo.transcript import UnexpectedError
from tests.support.ports import free_port

_FOUND = find_namespace()
pytestmark = pytest.mark.skipif(_FOUND is None, reason="this machine gives no mount namespace")
needs_users = pytest.mark.skipif(
    _FOUND is None or not _FOUND.maps_users, reason="other users' ids are root's alone to give"
)

_SHARED = {"name": "shared", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}
_AT = {"name": "shared", "mountPath": "/shared"}
_SIDECAR = """
import http.server, signal, sys
from pathlib import Path
def stop(*_):
    print("stopped", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
server = http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), http.server.SimpleHTTPRequestHandler)
Path("/shared/log").write_text("sidecar\\n")
server.serve_forever()
"""


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture
def node(tmp_path: Path, issuer: Issuer) -> Node:
    assert _FOUND is not None
    return make_node(tmp_path, _FOUND, issuer)


def make_node(folder: Path, namespace: Namespace, issuer: Issuer) -> Node:
    images = {"app": application_image(), "python": sidecar_image(Path("/bin/true"))}
    return Node(folder / "node", namespace, issuer, images)


def container(name: str, script: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "image": "app", "command": ["/bin/sh", "-ec", script], "volumeMounts": [_AT]} | fields


def pod(*containers: dict[str, Any], init: tuple[dict[str, Any], ...] = (), **fields: Any) -> dict[str, Any]:
    spec = {"initContainers": list(init), "containers": list(containers), "volumes": [_SHARED], **fields}
    return {"metadata": {"name": "p", "namespace": "shop"}, "spec": spec}


def test_init_containers_run_one_by_one_before_the_others(node: Node) -> None:
    steps = (container("one", "echo one >> /shared/log"), container("two", "sleep 0.1; echo two >> /shared/log"))
    ran = node.run(pod(container("app", "cat /shared/log"), init=steps))
    assert [each.name for each in ran.containers] == ["one", "two", "app"]
    assert ran.containers[-1].stdout == "one\ntwo\n"


def test_after_a_failed_init_container_nothing_starts(node: Node) -> None:
    failing = container("one", "echo why > /dev/termination-log; exit 7")
    ran = node.run(pod(container("app", "true"), init=(failing, container("two", "true"))))
    assert [(each.name, each.exit_code, each.message) for each in ran.containers] == [("one", 7, "why\n")]


def native_sidecar(port: int, **fields: Any) -> dict[str, Any]:
    probe = {"httpGet": {"path": "/", "port": port}, "periodSeconds": 1, "failureThreshold": 20}
    words = {"image": "python", "command": [sys.executable, "-c", _SIDECAR, str(port)]}
    return container("native", "", restartPolicy="Always", startupProbe=probe) | words | fields


def test_a_native_sidecar_has_started_before_the_others_and_is_stopped_after_them(node: Node) -> None:
    ran = node.run(pod(container("app", "cat /shared/log"), init=(native_sidecar(free_port()),)))
    assert [(each.name, each.exit_code) for each in ran.containers] == [("app", 0), ("native", 0)]
    assert [each.stdout for each in ran.containers] == ["sidecar\n", "stopped\n"]


def test_the_others_start_when_the_hook_of_a_native_sidecar_has_ended(node: Node) -> None:
    hook = {"postStart": {"exec": {"command": ["/bin/sh", "-c", "sleep 0.1; echo hook >> /shared/log"]}}}
    sleeping = container("native", "exec sleep 600", restartPolicy="Always", lifecycle=hook)
    ran = node.run(pod(container("app", "cat /shared/log"), init=(sleeping,)))
    assert ran.containers[0].stdout == "hook\n"


def test_a_native_sidecar_whose_hook_fails_fails_the_pod(node: Node) -> None:
    hook = {"postStart": {"exec": {"command": ["/bin/false"]}}}
    sleeping = container("native", "exec sleep 600", restartPolicy="Always", lifecycle=hook)
    with pytest.raises(UnexpectedError, match="hook after the start of native failed"):
        node.run(pod(container("app", "true"), init=(sleeping,)))


def test_a_native_sidecar_that_does_not_start_fails_the_pod(node: Node) -> None:
    dead = native_sidecar(free_port(), command=["/bin/false"])
    with pytest.raises(UnexpectedError, match="native did not start"):
        node.run(pod(container("app", "true"), init=(dead,)))


def test_the_environment_is_the_pods_own(node: Node) -> None:
    variables = [
        {"name": "ONE", "value": "1"},
        {"name": "TWO", "value": "$(ONE)+$(ONE) $$(ONE) $(LATER)"},
        {"name": "LATER", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
    ]
    ran = node.run(pod(container("app", "", command=["/usr/bin/env"], env=variables)))
    path, *others = ran.containers[0].stdout.splitlines()
    assert path.startswith("PATH=")
    assert others == ["ONE=1", "TWO=1+1 $(ONE) $(LATER)", "LATER=shop"]


def test_args_follow_the_command_and_are_expanded(node: Node) -> None:
    words = {"command": ["/bin/echo", "a"], "args": ["$(ONE)", "$$"], "env": [{"name": "ONE", "value": "1"}]}
    assert node.run(pod(container("app", "", **words))).containers[0].stdout == "a 1 $\n"


def test_a_volume_is_limited_to_its_size_and_a_read_only_mount_refuses_writes(node: Node) -> None:
    filling = container("full", "head -c 2000000 /dev/zero > /shared/big || rm /shared/big; touch /shared/left")
    script = "ls /shared; touch /shared/x || echo cannot"
    reader = container("app", script, volumeMounts=[_AT | {"readOnly": True}])
    ran = node.run(pod(reader, init=(filling,)))
    assert "No space left" in ran.containers[0].stderr
    assert ran.containers[1].stdout == "left\ncannot\n"


def test_the_image_is_read_only_and_the_root_too_when_the_pod_says_so(node: Node) -> None:
    script = "touch /new || echo no root; touch /usr/bin/new || echo no image"
    strict = container("strict", script, securityContext={"readOnlyRootFilesystem": True})
    ran = node.run(pod(container("app", script), init=(strict,), securityContext={"runAsUser": 0}))
    assert [each.stdout for each in ran.containers] == ["no root\nno image\n", "no image\n"]


@needs_users
def test_containers_run_as_the_pods_user_and_groups(node: Node) -> None:
    identity = {"runAsUser": 4711, "capabilities": {"drop": ["ALL"]}, "allowPrivilegeEscalation": False}
    script = "id -u; id -G; grep -E '^(NoNewPrivs|CapBnd|CapEff)' /proc/self/status; stat -c '%g %a' /shared"
    ran = node.run(pod(container("app", script, securityContext=identity), securityContext={"fsGroup": 815}))
    user, groups, *rest, shared = ran.containers[0].stdout.splitlines()
    assert user == "4711"
    assert "815" in groups.split()
    assert "0" not in groups.split()
    assert [each.split() for each in rest] == [["CapEff:", "0" * 16], ["CapBnd:", "0" * 16], ["NoNewPrivs:", "1"]]
    assert shared == "815 2777"


def test_a_projected_token_is_mounted_and_has_its_audience(node: Node, issuer: Issuer) -> None:
    projection = {"serviceAccountToken": {"audience": "someone", "expirationSeconds": 600, "path": "token"}}
    volumes = [_SHARED, {"name": "identity", "projected": {"sources": [projection]}}]
    reader = container("reader", "cat /id/token", volumeMounts=[{"name": "identity", "mountPath": "/id"}])
    other = container("other", "test ! -e /id")
    ran = node.run(pod(other, init=(reader,), volumes=volumes))
    claims = jwt.decode(ran.containers[0].stdout, issuer.key, algorithms=["RS256"]).claims
    assert (claims["aud"], claims["sub"]) == (["someone"], "system:serviceaccount:shop:default")
    assert claims["exp"] - claims["iat"] == 600
    assert ran.containers[1].exit_code == 0


def test_a_containers_root_holds_nothing_of_this_machine_but_its_image(node: Node) -> None:
    ran = node.run(pod(container("app", "ls / /dev")))
    names = set(ran.containers[0].stdout.split())
    assert {"shared", "app", "termination-log"} <= names
    assert not names & {"root", "home", "tmp", "var", "mem", "sda"}


def test_a_finished_pod_leaves_no_process_mount_or_file(node: Node) -> None:
    node.run(pod(container("app", "echo secret > /shared/secret")))
    assert [path for path in node.folder.rglob("*") if not path.is_dir()] == []
    assert str(node.folder) not in Path("/proc/self/mountinfo").read_text()


def test_fields_that_it_cannot_apply_are_named(node: Node) -> None:
    strange = container("proxy", "", image="elsewhere")
    bounded = container("app", "true", resources={"limits": {"cpu": 1}})
    assert node.run(pod(bounded, strange, runtimeClassName="kata")).not_applied == (
        "runtimeClassName",
        "resources",
        "container proxy (no image here)",
    )


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"volumes": [{"name": "shared", "hostPath": {"path": "/"}}]}, "volume shared"),
        ({"init": (container("one", "", image="elsewhere"),)}, "no image elsewhere"),
    ],
)
def test_a_volume_or_probe_that_it_cannot_provide_is_refused(node: Node, fields: dict[str, Any], words: str) -> None:
    with pytest.raises(UnexpectedError, match=words):
        node.run(pod(container("app", "true"), **fields))


@pytest.mark.skipif(os.geteuid() != 0, reason="as root it would be the other kind of namespace")
def test_without_other_users_it_names_the_fields_without_effect(tmp_path: Path, issuer: Issuer) -> None:
    unprivileged = make_node(tmp_path, Namespace(("unshare", "--mount"), maps_users=False), issuer)
    security = {"runAsUser": 4711, "fsGroup": 815}
    ran = unprivileged.run(pod(container("app", "true"), securityContext=security))
    assert ran.containers[0].exit_code == 0
    assert ran.not_applied == ("runAsUser", "fsGroup")
