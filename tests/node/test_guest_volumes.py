"""What morphisms-init publishes is readable where its volumes are mounted as in a Kata guest: root's, sticky, for all.

Evidence is simulated, and the runtime class is plain runc: the node's own volumes get a guest's owner and mode while
morphisms-init waits for the verifier.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

import pytest

from plan.layout import CONTAINER, RUN_VOLUME, SECRETS_VOLUME
from tests.cluster.client import Object
from tests.node.services import RESTRICTED, digest, service
from tests.node.stack import Stack
from tests.support.protected_links import is_followed
from tests.support.until import until

pytestmark = [pytest.mark.node, pytest.mark.slow]

NAMESPACE = "guest"
_PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
_PATIENCE_SECONDS = 600.0
_USERS = {"web": 1234, "helper": 1235}
_MODE = 0o3777
_HELPER_PORT = 7070
_DB, _KEY = "/morphisms/secrets/db", "/morphisms/secrets/conf/key"


def test_applications_of_other_users_read_secrets_in_a_guests_volumes(stack: Stack) -> None:
    """Two users, so that morphisms-init has a third; where there is one, it runs as that one and owns what it makes."""
    stack.namespace(NAMESPACE, {"morphisms.dev/mode": "inject"})
    path = f"knative/cluster/{NAMESPACE}/volumes/db"
    stack.morphisms.write_secret(path, password="first", key="of the key")
    annotations = {
        "morphisms.dev/secret-db": "~/db#password",
        "morphisms.dev/secret-key": "~/db#key",
        "morphisms.dev/file-key": "conf/key",
        "morphisms.dev/agent": "sidecar",
        "autoscaling.knative.dev/min-scale": "1",
    }
    made = service(stack.application.pinned, f"{NAMESPACE}/volumes", annotations)
    made["spec"]["template"]["spec"]["containers"] = [
        {**_container(stack, "web", FILES=f"{_DB},{_KEY}"), "ports": [{"containerPort": 8080}]},
        _container(stack, "helper", PORT=str(_HELPER_PORT)),
    ]
    with stack.without_verifier():
        stack.apply(made)
        pod = stack.admin.until(_PODS, _waiting, seconds=_PATIENCE_SECONDS)
        volumes = [_volume(stack, pod, name) for name in (SECRETS_VOLUME, RUN_VOLUME)]
        secrets, run = ({path.name for path in volume.iterdir()} for volume in volumes)
        others = {name for name in run if name != "exec" and not name.startswith(".exec.")}  # as it is installed
        assert (secrets, others) == (set(), set()), "more than the hook's helper is there"
        for volume in volumes:
            os.chown(volume, 0, -1)
            volume.chmod(_MODE)
    ready = stack.ready_pod(NAMESPACE, "volumes", seconds=_PATIENCE_SECONDS)
    assert ready["metadata"]["uid"] == pod["metadata"]["uid"]
    _shows(stack, ready, "first")
    for name, port in (("web", 8080), ("helper", _HELPER_PORT)):
        answer = stack.ask(ready, port)
        assert (answer["user"], answer["variables"]) == (_USERS[name], {"A": digest("first")})
    _check(volumes)
    # A further publication lies beside the one before.
    stack.morphisms.write_secret(path, password="second", key="of the key")
    until(lambda: stack.ask(ready)["files"][_DB] == digest("second"), _PATIENCE_SECONDS)
    _shows(stack, ready, "second")
    _check(volumes)


def _container(stack: Stack, name: str, **env: str) -> Object:
    variables = {"A": "vault:~/db#password", "VARIABLES": "A", **env}
    return {
        "name": name,
        "image": stack.application.pinned,
        "command": ["/application"],
        "env": [{"name": key, "value": value} for key, value in variables.items()],
        "securityContext": {**RESTRICTED, "runAsUser": _USERS[name]},
    }


def _check(volumes: list[Path]) -> None:
    """They are still as a guest's, and hold no link that the kernel of a guest would not let the application follow."""
    secrets, run = volumes
    assert (secrets / "db").is_file()
    assert (secrets / "conf" / "key").is_file()
    assert (run / "exec").is_file()
    assert secrets.joinpath("db").stat().st_uid not in (0, *_USERS.values())
    for volume in volumes:
        assert (volume.stat().st_uid, stat.S_IMODE(volume.stat().st_mode)) == (0, _MODE)
        for folder, folders, files in os.walk(volume):
            for path in [Path(folder, name) for name in (*folders, *files)]:
                with contextlib.suppress(FileNotFoundError):  # of a publication that is just being replaced
                    _check_link(path)


def _check_link(path: Path) -> None:
    if path.is_symlink():
        owner, folder = path.lstat().st_uid, path.parent.stat()
        for reader in _USERS.values():
            assert is_followed(owner, folder.st_uid, folder.st_mode, reader), f"{path} for user {reader}"


def _shows(stack: Stack, pod: Object, password: str) -> None:
    assert stack.ask(pod)["files"] == {_DB: digest(password), _KEY: digest("of the key")}


def _waiting(pods: list[Object]) -> Object | None:
    """The pod whose morphisms-init runs."""
    for pod in pods:
        for status in pod["status"].get("initContainerStatuses", ()):
            if status["name"] == CONTAINER and "running" in status["state"]:
                return pod
    return None


def _volume(stack: Stack, pod: Object, name: str) -> Path:
    """Where the node has mounted it."""
    pods = stack.cluster.node.folder / "kubelet" / "pods"
    return stack.sandbox.root(str(pods / pod["metadata"]["uid"] / "volumes" / "kubernetes.io~empty-dir" / name))
